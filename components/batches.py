"""Batches of a split that is held as tensors: whole-batch gathers, any batch by its number."""

from dataclasses import dataclass

import torch
from torch import Tensor

from components import arrays
from components.contracts import Batch, Plan
from components.params import TaskParams


@dataclass(frozen=True)
class Gathered:
    """Batch i holds the samples `order[i * size : (i + 1) * size]`, of which a worker takes its share."""

    split: Batch
    order: Tensor  # (samples,), where the split is: sent there batch by batch it would wait for a busy GPU
    size: int
    count: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Batch:
        if not 0 <= index < self.count:
            raise IndexError(index)
        chosen, following = self._chosen(index), self._chosen(index + 1)
        batch = {name: tensor[chosen] for name, tensor in self.split.items()}
        for tensor in self.split.values():
            arrays.read_ahead(tensor, following)
        return batch

    def _chosen(self, index: int) -> Tensor:
        return self.order[index * self.size : (index + 1) * self.size][self.rank :: self.world]


def shuffled(split: Batch, params: TaskParams, plan: Plan) -> Gathered:
    """Return an epoch's training batches in an order that only seed and epoch decide.

    Samples that do not fill a last batch are left to other epochs; a split smaller than a batch is one batch.
    """
    samples = _samples(split)
    size, seed = params.train.batch_size, params.train.seed
    generator = torch.Generator().manual_seed(seed * 1_000_003 + plan.epoch)
    order = torch.randperm(samples, generator=generator).to(_device(split))
    return Gathered(split, order, size, max(samples // size, 1), plan.rank, plan.world)


def in_order(split: Batch, size: int) -> Gathered:
    """Return batches that hold every sample once, in the split's own order."""
    samples = _samples(split)
    return Gathered(split, torch.arange(samples, device=_device(split)), size, -(-samples // size))


def _samples(split: Batch) -> int:
    return len(next(iter(split.values())))


def _device(split: Batch) -> torch.device:
    return next(iter(split.values())).device
