"""Sums of a task, accumulated over micro-batches, updates, batches and workers: float64 tensors of any shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from components.contracts import Batch, StepOutput, Task

LOSS, COUNT = "loss", "count"


class Sums:
    """Sums by name, and the count that divides them; all stay on the device, so that adding does not block."""

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        self._tensors = dict(tensors or {})

    @classmethod
    def of_step(cls, output: StepOutput) -> Sums:
        """Return the sums of a step, including its loss."""
        loss = output.loss.detach()
        # Created on the device: a copy to a GPU would wait for its pending work.
        count = (
            output.count.detach().double()
            if isinstance(output.count, Tensor)
            else torch.full((), output.count, dtype=torch.float64, device=loss.device)
        )
        return cls({LOSS: loss.double(), **output.sums, COUNT: count})

    @classmethod
    def joined(cls, many: Iterable[Sums]) -> Sums:
        """Return the total of several sums."""
        total = cls()
        for each in many:
            total.add(each)
        return total

    def __bool__(self) -> bool:
        """Return whether anything was added."""
        return bool(self._tensors)

    def tensors(self) -> Batch:
        """Return sums and count, for a checkpoint."""
        return dict(self._tensors)

    @property
    def count(self) -> Tensor:
        """A float64 scalar."""
        return self._tensors[COUNT]

    def mean_loss(self) -> float:
        """Return the loss divided by the count; waits for the device."""
        return float(self._tensors[LOSS] / self.count.clamp(min=1))

    def add(self, more: Sums) -> None:
        """Add sums with the same names and shapes."""
        for name, tensor in more._tensors.items():
            self._tensors[name] = self._tensors[name] + tensor if name in self._tensors else tensor

    def zero(self) -> Sums:
        """Return zeros with the same names and shapes."""
        return Sums({name: torch.zeros_like(tensor) for name, tensor in self._tensors.items()})

    def total(self) -> tuple[Batch, int]:
        """Return the sums over all workers, on the CPU, and their count."""
        row = self.row()
        if dist.is_initialized():
            dist.all_reduce(row)
        return self.from_row(row)

    def row(self) -> Tensor:
        """Return all numbers as one row, (K,), float64."""
        return torch.cat([tensor.double().reshape(-1) for tensor in self._tensors.values()])

    def from_row(self, row: Tensor) -> tuple[Batch, int]:
        """Convert a row back into sums with these names and shapes, on the CPU, and their count."""
        pieces = row.cpu().split([tensor.numel() for tensor in self._tensors.values()])
        sums = {
            name: piece.view(tensor.shape)
            for (name, tensor), piece in zip(self._tensors.items(), pieces, strict=True)
        }
        return sums, int(sums.pop(COUNT))


def at_least_one(count: int | Tensor) -> int | Tensor:
    """Return a divisor that is valid for an empty sum, too."""
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)


def metrics_of(task: Task[Any, Any], sums: Batch, count: int) -> dict[str, float]:
    """Return a task's metrics: each scalar sum divided by the count, unless the task defines its own."""
    if task.metrics:
        return task.metrics(sums, count)
    return {name: float(each) / max(count, 1) for name, each in sums.items() if each.ndim == 0}
