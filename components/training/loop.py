"""The one loop, for every task: forward, loss, backward, update, schedule, until done.

Every random number of training is a function of (seed, update, rank), so that a run can be taken up at any
update without the state of a generator.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from components.contracts import Batch, Batches, Plan, Prepared, Task, Workers
from components.errors import PedigreeError
from components.params import TaskParams
from components.training import saved
from components.training.device import autocast, flops, peak_flops, resident, to_device
from components.training.inference import evaluate, placed, total
from components.training.optimization import build_average, build_optimizer, build_schedule


@dataclass
class _State:
    """What an update changes."""

    model: nn.Module
    network: nn.Module
    """The model, wrapped for gradients to be averaged when there are several workers."""
    optimizer: Optimizer
    schedule: LRScheduler
    average: AveragedModel | None
    update: int = 0
    best: float | None = None
    epochs_without_better: int = 0
    sums: list[Tensor] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The weights that are validated and kept: their moving average where there is one."""
        return self.model if self.average is None else self.average.module


def fit(task: Task[Any], params: TaskParams, prepared: Prepared, out: Path, workers: Workers) -> None:
    """Train a network on the prepared data and leave its best weights in `out`.

    Raises:
        PedigreeError: a parameter does not fit the data.
    """
    train = params.train
    torch.manual_seed(train.seed)
    splits = {name: resident(task.load_split(prepared.folder, name), workers.device) for name in ("train", "val")}
    model = task.build_model(params, prepared.manifest)
    task.initialise(model, params)
    model = placed(model, workers.device)
    speed = _Speed.measure(task, params, model, splits["train"], workers)
    plan = Plan(train.batch_size, train.seed, rank=workers.rank, world=workers.world)
    updates = train.epochs * len(task.train_batches(splits["train"], plan))
    optimizer = build_optimizer(model, train.optimizer)
    state = _State(
        model=model,
        network=DistributedDataParallel(model) if workers.world > 1 else model,
        optimizer=optimizer,
        schedule=build_schedule(optimizer, train.schedule, updates),
        average=build_average(model, train.ema_decay) if train.ema_decay else None,
    )
    for epoch in range(train.epochs):
        batches = task.train_batches(splits["train"], Plan(**{**vars(plan), "epoch": epoch}))
        lr = float(state.schedule.get_last_lr()[0])
        started = time.monotonic()
        sums, count = _train_epoch(task, params, state, batches, epoch, updates, workers)
        seconds = time.monotonic() - started
        if not all(map(math.isfinite, sums.values())):
            raise PedigreeError(
                f"training diverged in epoch {epoch + 1}, its loss is no longer a number: "
                f"lower train.optimizer.lr (now {train.optimizer.lr}) or set train.clip_norm"
            )
        _same_buffers(state.judged, workers)
        scores = evaluate(task, params, state.judged, splits["val"], workers.device, train.batch_size)
        record = {
            "epoch": epoch + 1,
            **{f"train/{name}": value for name, value in task.metrics(sums, count).items()},
            **{f"val/{name}": value for name, value in scores.items()},
            "train/lr": lr,
            **speed.of(count, seconds),
        }
        _keep_best(state, train.best_metric, train.best_mode, scores, out, workers)
        workers.emit({"kind": "epoch", "epochs": train.epochs, "metrics": record})
        if train.patience and state.epochs_without_better >= train.patience:
            break


def _train_epoch(
    task: Task[Any],
    params: TaskParams,
    state: _State,
    batches: Batches,
    epoch: int,
    updates: int,
    workers: Workers,
) -> tuple[dict[str, float], int]:
    """Run one epoch's updates; return its sums and count over all workers."""
    state.network.train()
    rows: list[Tensor] = []
    names: list[str] = []
    progress = _Progress(params.train.epochs, updates, workers)
    for index in range(len(batches)):
        batch = to_device(batches[index], workers.device)
        sums, count = _update(task, params, state, batch, workers)
        names = list(sums)
        rows.append(torch.stack([*sums.values(), torch.tensor(float(count), device=workers.device)]).double())
        progress.tell(epoch, state.update, sums, count)
    return total(torch.stack(rows).sum(0, keepdim=True), names)


def _update(
    task: Task[Any], params: TaskParams, state: _State, batch: Batch, workers: Workers
) -> tuple[dict[str, Tensor], int]:
    """Make one optimizer update from this worker's share of a batch, piece by piece."""
    train = params.train
    _seed(train.seed, state.update, workers.rank)
    samples = len(next(iter(batch.values())))
    pieces = _pieces(batch, train.accumulate)
    sums: dict[str, Tensor] = {}
    count = 0
    for number, piece in enumerate(pieces, start=1):
        with _without_exchange(state.network) if number < len(pieces) else nullcontext():
            with autocast(workers.device, train.precision):
                output = task.step(state.network, task.augment(piece, params), params)
            share = len(next(iter(piece.values()))) / samples
            (output.loss * share).backward()
        for name, value in output.sums.items():
            sums[name] = sums[name] + value if name in sums else value
        count += output.count
    if train.clip_norm:
        nn.utils.clip_grad_norm_(state.model.parameters(), train.clip_norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.schedule.step()
    if state.average is not None:
        state.average.update_parameters(state.model)
    state.update += 1
    return sums, count


def _pieces(batch: Batch, number: int) -> list[Batch]:
    chunks = {name: tensor.chunk(number) for name, tensor in batch.items()}
    return [dict(zip(chunks, piece, strict=True)) for piece in zip(*chunks.values(), strict=True)]


def _without_exchange(network: nn.Module) -> AbstractContextManager[None]:
    """Let gradients add up locally: they are averaged among the workers once an update."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def _seed(seed: int, update: int, rank: int) -> None:
    torch.manual_seed(((seed * 1_000_003 + update) * 4099 + rank) % 2**63)


def _same_buffers(model: nn.Module, workers: Workers) -> None:
    """Give every worker rank 0's running statistics: each has seen other samples."""
    if workers.world > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _keep_best(
    state: _State, metric: str, mode: str, scores: dict[str, float], out: Path, workers: Workers
) -> None:
    if metric not in scores:
        raise PedigreeError(f"train.best_metric {metric!r} is not measured: it is one of {', '.join(scores)}")
    score = scores[metric] if mode == "max" else -scores[metric]
    if state.best is None or score > state.best:
        state.best, state.epochs_without_better = score, 0
        if workers.rank == 0:
            saved.save_weights(out, state.judged)
    else:
        state.epochs_without_better += 1


@dataclass
class _Progress:
    """Tells of the progress inside an epoch, at most twice a second: reading the loss waits for the device."""

    epochs: int
    updates: int
    workers: Workers
    samples: int = 0
    started: float = field(default_factory=time.monotonic)
    told: float = 0.0
    first: int | None = None

    def tell(self, epoch: int, update: int, sums: dict[str, Tensor], count: int) -> None:
        self.first = update - 1 if self.first is None else self.first
        self.samples += count * self.workers.world
        now = time.monotonic()
        if self.workers.rank or now - self.told < 0.5:
            return
        self.told = now
        seconds = max(now - self.started, 1e-9)
        self.workers.emit(
            {
                "kind": "progress",
                "epoch": epoch + 1,
                "epochs": self.epochs,
                "share": update / self.updates,
                "loss": float(sums["loss"]) / count,
                "samples_per_second": self.samples / seconds,
                "seconds_left": (self.updates - update) * seconds / (update - self.first),
            }
        )


@dataclass(frozen=True)
class _Speed:
    """What a sample costs and what the device can give, both measured before training starts."""

    flops_a_sample: float
    peak: float
    """FLOP/s over all workers."""

    @classmethod
    def measure(
        cls, task: Task[Any], params: TaskParams, model: nn.Module, split: Batch, workers: Workers
    ) -> "_Speed":
        copy = deepcopy(model).train()
        batch = to_device(task.train_batches(split, Plan(batch_size=2, seed=0))[0], workers.device)

        def forward_and_backward() -> None:
            task.step(copy, batch, params).loss.backward()

        cost = flops(forward_and_backward)
        samples = len(next(iter(batch.values())))
        return cls(cost / samples, workers.world * peak_flops(workers.device, params.train.precision))

    def of(self, samples: int, seconds: float) -> dict[str, float]:
        rate = samples / seconds
        return {
            "speed/samples_per_second": rate,
            "speed/share_of_peak": rate * self.flops_a_sample / self.peak,
        }
