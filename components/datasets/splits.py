"""A prepared split as columns: dense tensors, and ragged ones whose rows differ in length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from components.contracts import Batch
from components.datasets import arrays
from components.datasets.ragged import Ragged


@dataclass(frozen=True)
class Columns:
    """The split of most tasks; see `contracts.Split`."""

    dense: Batch
    """Dense columns by name, each (N, ...)."""
    ragged: Mapping[str, Ragged] = field(default_factory=dict)
    """Ragged columns by name, each of N rows."""
    lengths: Tensor | None = None
    """Length of each sample, (N,), if batches are to be bucketed by length."""

    def __getitem__(self, name: str, /) -> Tensor:
        """Return a dense column."""
        return self.dense[name]

    def __len__(self) -> int:
        dense = next(iter(self.dense.values()), None)
        return len(next(iter(self.ragged.values())) if dense is None else dense)

    def __getitems__(self, indices: Tensor, /) -> Batch:
        """Return the samples at `indices`, (B,); ragged columns are padded and come with their lengths or sizes."""
        batch = {name: tensor[on_device(tensor.device, indices)] for name, tensor in self.dense.items()}
        for name, rows in self.ragged.items():
            batch[name], sizes = rows.padded(indices.cpu())
            batch[f"{name}_{'length' if sizes.ndim == 1 else 'size'}"] = sizes
        return batch

    @property
    def device(self) -> torch.device:
        """Device of the dense columns; the CPU if there are none, or ragged ones, whose rows are planned there."""
        if self.ragged:
            return torch.device("cpu")
        return next((tensor.device for tensor in self.dense.values()), torch.device("cpu"))

    def read_ahead(self, indices: Tensor, /) -> None:
        """Advise the operating system that these samples will be needed next."""
        for tensor in self.dense.values():
            arrays.read_ahead(tensor, indices)

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        tensors = [*self.dense.values(), *(rows.values for rows in self.ragged.values())]
        return sum(tensor.nbytes for tensor in tensors)

    def to(self, device: torch.device, /) -> Columns:
        """Return the split with its columns on a device."""
        return replace(
            self,
            dense={name: tensor.to(device) for name, tensor in self.dense.items()},
            ragged={name: rows.to(device) for name, rows in self.ragged.items()},
        )

    def take(self, indices: Tensor) -> Columns:
        """Return the samples at `indices` as a new split; ragged values are shared, not copied."""
        return Columns(
            {name: tensor[indices] for name, tensor in self.dense.items()},
            {
                name: Ragged(rows.values, rows.shapes[indices.cpu()], rows.starts[indices.cpu()])
                for name, rows in self.ragged.items()
            },
            None if self.lengths is None else self.lengths[indices.cpu()],
        )


def on_device(device: torch.device, indices: Tensor) -> Tensor:
    """Return indices on a device, without waiting for a GPU that is busy."""
    if device.type == "cuda" and indices.device.type != "cuda":
        return indices.pin_memory().to(device, non_blocking=True)
    return indices
