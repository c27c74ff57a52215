"""Going once over a split without training, on one worker or many, with the same result to the last digit.

Batches are the same whatever the number of workers; each worker computes whole batches, and what they give
is put together in the order of the batches.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from components.contracts import Batch, Prepared, Task, Workers
from components.params import TaskParams
from components.training import saved
from components.training.device import allow_tf32, to_device


def predict_to_file(
    task: Task[Any], model_folder: Path, prepared: Prepared, batch_size: int, out: Path, workers: Workers
) -> None:
    """Rebuild a saved network and write its predictions on the test split as a safetensors file."""
    model = placed(saved.rebuild(task, model_folder), workers.device)
    split = task.load_split(prepared.folder, "test")
    predictions = predict(task, model, split, workers.device, batch_size)
    if predictions is not None:
        with saved.written(out):
            save_file(predictions, out)


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model on the device, in the memory format in which convolutions are fastest."""
    placed_model: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed_model


def _place() -> tuple[int, int]:
    """Return this worker's rank and the number of workers."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def total(row: Tensor, names: list[str]) -> tuple[dict[str, float], int]:
    """Add up rows of sums, the last column their count, over this worker's rows and over all workers.

    Args:
        row: (rows, names + 1), float64; other workers' rows are zero here.
        names: Of the columns before the count.
    """
    if dist.is_initialized():
        dist.all_reduce(row)
    values = row.sum(0).tolist()
    return dict(zip(names, values, strict=False)), int(values[-1])


@torch.inference_mode()
def evaluate(
    task: Task[Any], params: TaskParams, model: nn.Module, split: Batch, device: torch.device, batch_size: int
) -> dict[str, float]:
    """Return the task's metrics over the whole split, in fp32."""
    model.eval()
    allow_tf32(device, False)
    rank, world = _place()
    batches = task.eval_batches(split, batch_size)
    names: list[str] = []
    rows: Tensor | None = None
    for index in range(len(batches)):
        if index % world == rank or rows is None:
            output = task.step(model, to_device(batches[index], device), params)
            names = list(output.sums)
            rows = (
                rows
                if rows is not None
                else torch.zeros(len(batches), len(names) + 1, dtype=torch.float64, device=device)
            )
            if index % world == rank:
                rows[index, :-1] = torch.stack(list(output.sums.values()))
                rows[index, -1] = output.count
    assert rows is not None, "a prepared split is never empty"
    return task.metrics(*total(rows, names))


@torch.inference_mode()
def predict(task: Task[Any], model: nn.Module, split: Batch, device: torch.device, batch_size: int) -> Batch | None:
    """Return what evaluation needs of every sample, in the split's order, on rank 0; None on the others."""
    model.eval()
    allow_tf32(device, False)
    rank, world = _place()
    batches = task.eval_batches(split, batch_size)
    mine = {i: task.predict(model, to_device(batches[i], device)) for i in range(rank, len(batches), world)}
    gathered: list[dict[int, Batch] | None] = [None] * world
    if world == 1:
        gathered = [mine]
    else:
        dist.gather_object(mine, gathered if rank == 0 else None)
    if rank:
        return None
    parts: dict[int, Batch] = {}
    for part in gathered:
        parts |= part or {}
    return {name: torch.cat([parts[i][name] for i in range(len(batches))]) for name in parts[0]}
