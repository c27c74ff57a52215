"""What a GPU computes with: splits that fit are moved there whole, of others a thread gathers the next batch."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from components.contracts import Batch, Batches, Split
from components.runtime.background import in_thread
from components.training.device import pinned


def resident(splits: Sequence[Split], device: torch.device) -> list[Split]:
    """Move splits to a GPU, in this order, as long as they fill less than half of its free memory together.

    The other half is for the network, the optimizer and activations, whose size is not known yet.

    Returns:
        The splits, moved or as they were; on the CPU they stay memory-mapped.
    """
    if device.type != "cuda":
        return list(splits)
    free, _ = torch.cuda.mem_get_info(device)
    room = free / 2
    moved = list[Split]()
    for split in splits:
        fits = split.nbytes < room
        room -= split.nbytes if fits else 0
        moved.append(split.to(device) if fits else split)
    return moved


def ahead(batches: Batches, split: Split, device: torch.device, step: int = 1) -> Batches:
    """Return batches that are gathered before they are needed, if they have to be copied to a GPU.

    Args:
        batches: Batches of the split.
        split: The split, which may be on the GPU already.
        device: The device that computes.
        step: Distance between the indices of two batches that follow each other.
    """
    return Ahead(batches, step) if device.type == "cuda" and split.device.type != "cuda" else batches


@dataclass
class Ahead:
    """Batches in pinned memory, the next of which a thread gathers while the present one is computed with.

    A thread ends with its batch, so that none is left when training stops, whatever stops it. An error is raised
    where its batch is asked for.
    """

    batches: Batches
    step: int
    _next: tuple[int, Future[Batch]] | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int, /) -> Batch:
        before, self._next = self._next, None
        batch = before[1].result() if before and before[0] == index else self._gathered(index)
        following = index + self.step
        if following < len(self):
            gathering = in_thread(lambda: self._gathered(following), "gather", daemon=False)
            self._next = following, gathering
        return batch

    def _gathered(self, index: int) -> Batch:
        return pinned(self.batches[index])
