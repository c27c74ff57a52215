"""One pass over a split without training, with bitwise the same result for any number of workers.

The batches do not depend on the number of workers, and each worker computes entire batches. Sums are added in the
order of the batches; predictions are written to one file per batch, which evaluation reads one after the other.
"""

import logging
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.contracts import Batch, Prepared, Split, Task, Worker
from components.datasets.batches import in_order
from components.params import TaskParams
from components.runtime.progress import Progress
from components.training import model_files
from components.training.device import allow_tf32, to_device
from components.training.sums import Sums, metrics_of
from components.training.transfer import ahead

log = logging.getLogger("pedigree.evaluate")

TOGETHER = 64
"""Batches per worker whose sums are held in memory and exchanged at once."""


@dataclass(frozen=True)
class Predictions:
    """A network's predictions on a split: one file per batch, read on demand in the split's order."""

    folder: Path

    def __iter__(self) -> Iterator[Batch]:
        for file in sorted(self.folder.glob("*.safetensors")):
            yield load_file(file)


def predict_to_folder(
    task: Task[Any, Any],
    params: TaskParams,
    model_folder: Path,
    prepared: Prepared,
    folder: Path,
    worker: Worker,
) -> None:
    """Rebuild a saved network and write its predictions on the test split into an empty folder, one file per batch.

    All workers write to the same folder, so that predictions are not exchanged between them.
    """
    model = placed(model_files.rebuild(task, model_folder, params), worker.device)
    split = task.load_split(prepared.folder, "test")
    predict(task, params, model, split, worker.device, folder)
    if dist.is_initialized():
        dist.barrier()


@torch.inference_mode()
def predict(
    task: Task[Any, Any], params: TaskParams, model: nn.Module, split: Split, device: torch.device, folder: Path
) -> Predictions:
    """Write this worker's share of the predictions on a split; return the predictions in the folder.

    The random generator is seeded with the batch's index, so that results do not depend on the worker.
    """
    rank, world = _rank_and_world()
    for number, predicted in enumerate(predictions(task, params, model, split, device, rank, world)):
        file = folder / f"{rank + number * world:09d}.safetensors"
        with model_files.written(file):
            save_file({name: tensor.contiguous() for name, tensor in predicted.items()}, file)
    return Predictions(folder)


@torch.inference_mode()
def predictions(
    task: Task[Any, Any],
    params: TaskParams,
    model: nn.Module,
    split: Split,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Yield a worker's share of the predictions on a split, on the CPU; by default all of them."""
    model.eval()
    allow_tf32(device, False)
    batches = ahead((task.eval_batches or in_order)(split, params.evaluate.batch_size), split, device, world)
    progress = Progress(log)
    for index in range(rank, len(batches), world):
        torch.manual_seed(params.evaluate.seed * 1_000_003 + index)
        predicted = task.predict(model, to_device(batches[index], device), params)
        if rank == 0:
            progress.say(f"{index + 1:,} of {len(batches):,} batches predicted")
        yield {name: tensor.cpu() for name, tensor in predicted.items()}


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model on the device, in the memory format in which convolutions are fastest."""
    placed_model: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed_model


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of the model, on its device.

    cuDNN reads the weights of a recurrent layer from one piece of memory. A copy has them in several, which cuDNN
    would copy into one at each call, with a warning (torch/nn/modules/rnn.py, `flatten_parameters`).
    """
    copy = deepcopy(model)
    for part in copy.modules():
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters()
    return copy


def _rank_and_world() -> tuple[int, int]:
    """Return this worker's rank and the number of workers."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@torch.inference_mode()
def evaluate(
    task: Task[Any, Any], params: TaskParams, model: nn.Module, split: Split, device: torch.device, batch_size: int
) -> dict[str, float]:
    """Return the task's metrics over the entire split, in fp32.

    On a GPU, TF32 would be several times as fast, but its products have 10 bits: the network would answer otherwise
    than it does when it is served by a CPU.
    """
    model.eval()
    allow_tf32(device, False)
    rank, world = _rank_and_world()
    batches = ahead((task.eval_batches or in_order)(split, batch_size), split, device, world)

    def sums_of(index: int) -> Sums:
        torch.manual_seed(params.train.seed * 1_000_003 + index)
        return Sums.of_step(task.step(model, to_device(batches[index], device), params))

    shape: Sums | None = None
    total: Tensor | None = None
    for first in range(0, len(batches), TOGETHER * world):
        indices = range(first, min(first + TOGETHER * world, len(batches)))
        mine = {index: sums_of(index) for index in indices[rank::world]}
        # A worker without a batch of its own also needs the names and shapes.
        shape = shape or next(iter(mine.values()), None) or sums_of(first)
        rows = torch.stack([(mine[index] if index in mine else shape.zero()).row() for index in indices])
        if dist.is_initialized():
            dist.all_reduce(rows)
        total = rows.sum(0) if total is None else total + rows.sum(0)
    assert total is not None, "a prepared split is never empty"
    assert shape is not None, "as above"
    return metrics_of(task, *shape.from_row(total))
