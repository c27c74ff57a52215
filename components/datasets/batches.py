"""Batches of a split, gathered by index; the batches do not depend on the number of workers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from components.contracts import Batch, Shard, Split
from components.params import TaskParams

BUCKET = 32
"""Batches whose samples are sorted by length together: more of them mean less padding, but also less shuffling."""


@dataclass(frozen=True)
class Gathered:
    """Batch i has the samples `order[i * size : (i + 1) * size]`, of which each worker takes its share."""

    split: Split
    order: Tensor  # (samples,), on the split's device: copying it batch by batch would wait for a busy GPU
    size: int
    count: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Batch:
        if not 0 <= index < self.count:
            raise IndexError(index)
        batch = self.split.__getitems__(self._indices(index))
        self.split.read_ahead(self._indices(index + 1))
        return batch

    def _indices(self, index: int) -> Tensor:
        return self.order[index * self.size : (index + 1) * self.size][self.rank :: self.world]


def shuffled(split: Split, params: TaskParams, shard: Shard) -> Gathered:
    """Return an epoch's training batches in an order that depends only on seed and epoch.

    Samples that do not fill a last batch are left out of this epoch; a split smaller than a batch is one batch. If
    the split has lengths, each batch has samples of similar length (bucketing). The batches do not depend on the
    number of workers, whose shares of a batch have the same number of samples.
    """
    samples, size = len(split), params.train.batch_size
    generator = torch.Generator().manual_seed(params.train.seed * 1_000_003 + shard.epoch)
    order = torch.randperm(samples, generator=generator)
    count = max(samples // size, 1)
    if split.lengths is not None:
        order = _bucketed(order[: count * size], split.lengths, size, generator)
    return Gathered(split, order.to(split.device), size, count, shard.rank, shard.world)


def _bucketed(order: Tensor, lengths: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Sort each bucket of batches by length, then shuffle the batches; input and result are (samples,)."""
    buckets = order.split(BUCKET * size)
    batches = [batch for bucket in buckets for batch in bucket[lengths[bucket].argsort(stable=True)].split(size)]
    return torch.cat([batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()])


def in_order(split: Split, size: int) -> Gathered:
    """Return batches that contain every sample once, in the split's order."""
    return Gathered(split, torch.arange(len(split), device=split.device), size, -(-len(split) // size))


def spread(samples: int, most: int) -> Tensor:
    """Return at most `most` indices, evenly spread over the samples, which are sorted by class."""
    count = min(samples, most)
    return torch.arange(count) * samples // count
