"""python -m benchmarks.scaling: the cost of exchanging gradients between workers, and a model of that cost.

Workers are single-threaded processes on this machine that exchange gradients with gloo over loopback. Each has a
batch of its own, so that with perfect scaling the time of an update stays constant. As a baseline, the same number
of workers runs without exchange, which isolates the effect of shared caches and memory.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from benchmarks import report
from benchmarks.cases import values_of
from components import tasks
from components.contracts import Manifest
from components.training.device import to_device
from components.training.optimization import build_optimizers

CPU = torch.device("cpu")
BATCH = 64
"""Images per worker and micro-batch."""
SECONDS = 5.0
"""Duration of each measurement after warm-up."""
WARM_UP = 3
WIDTH = 0.5
WORLDS = (1, 2, 4)


@dataclass(frozen=True)
class Exchange:
    """How gradients are exchanged."""

    pieces: int = 1
    """Micro-batches of an update, after the last of which gradients are exchanged."""
    bucket: float = 25
    """MiB of gradients that are sent together; torch's default."""
    bf16: bool = False
    """Whether gradients are sent in bf16, half the bytes."""
    none: bool = False
    """Whether there is no exchange."""


KINDS = {
    "no exchange": Exchange(none=True),
    "each update": Exchange(),
    "buckets of 1 MiB": Exchange(bucket=1),
    "gradients in bf16": Exchange(bf16=True),
    "no exchange, 4 pieces": Exchange(pieces=4, none=True),
    "each update of 4 pieces": Exchange(pieces=4),
}


def network() -> tuple[nn.Module, Any]:
    """Return ResNet-18 at half width, for images of 32 x 32 in ten classes, and its parameters."""
    values = values_of("image_classification", 0, f"train.model.width={WIDTH}")
    facts = {
        "classes": [str(number) for number in range(10)],
        "channels": 3,
        "size": 32,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "counts": {},
    }
    manifest = Manifest(task="image_classification", splits={}, rejected=[], facts=facts)
    torch.manual_seed(0)
    return tasks.load("image_classification").build_model(values, manifest).to(
        memory_format=torch.channels_last
    ), values


def _worker(rank: int, world: int, kind: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=Path(folder, "meeting").as_uri(), rank=rank, world_size=world)
    model, values = network()
    exchange = KINDS[kind]
    wrapped: nn.Module = model
    if not exchange.none:
        wrapped = DistributedDataParallel(model, bucket_cap_mb=exchange.bucket)
        if exchange.bf16:
            wrapped.register_comm_hook(None, bf16_compress_hook)
    task, optimizers = tasks.load("image_classification"), build_optimizers(model, values.train.optimizer)
    augment = task.augment
    assert augment is not None, "image classification augments its images"
    pieces = exchange.pieces
    image = torch.randint(256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    batch = to_device({"image": image, "label": torch.randint(10, (BATCH,))}, CPU)

    def update() -> None:
        for number in range(pieces):
            last = number == pieces - 1
            waits: AbstractContextManager[None] = nullcontext()
            if isinstance(wrapped, DistributedDataParallel) and not last:
                waits = wrapped.no_sync()
            with waits:
                output = task.step(wrapped, augment(batch, values), values)
                (output.loss / (pieces * output.count)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    gradients = torch.zeros(sum(p.numel() for p in model.parameters()))
    found = {"update": _seconds(update) / pieces, "parameters": len(gradients)}
    if not exchange.none:
        found["exchange"] = _seconds(lambda: send(gradients, exchange.bf16)) / pieces
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def send(gradients: torch.Tensor, bf16: bool) -> None:
    """Add up the gradients of all workers, in half the bytes if `bf16`."""
    sent = gradients.bfloat16() if bf16 else gradients
    dist.all_reduce(sent)
    if bf16:
        gradients.copy_(sent)


def _seconds(call: Callable[[], object]) -> float:
    """Return the average seconds of a call; all workers make the same number of calls."""
    for _ in range(WARM_UP):
        call()
    started = time.perf_counter()
    call()
    calls = torch.tensor(max(1, round(SECONDS / (time.perf_counter() - started))))
    dist.broadcast(calls, 0)
    started = time.perf_counter()
    for _ in range(int(calls)):
        call()
    return (time.perf_counter() - started) / int(calls)


def measured(world: int, kind: str) -> dict[str, float]:
    """Return the seconds of a micro-batch with `world` workers, and its share of the time of an exchange."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_worker, (world, kind, folder), nprocs=world)
        return dict(json.loads(Path(folder, "found.json").read_text()))


def main() -> None:
    """Measure and print each round, and record the results for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    options = parser.parse_args()
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for number in range(options.rounds):
        for world in WORLDS:
            for kind in KINDS if world > 1 else ["no exchange"]:
                rows = found.setdefault(str(world), {}).setdefault(kind, [])
                rows.append(measured(world, kind))
                print(f"round {number + 1}, {world} workers, {kind}: {rows[-1]}", flush=True)
        report.record("scaling", {"batch": BATCH, "cores": len(os.sched_getaffinity(0)), "workers": found})


if __name__ == "__main__":
    main()
