"""Arrays whose rows differ in length, stored as two `.npy` files: the concatenated values, and the shapes.

The values stay on disk, memory-mapped; the rows of a batch are padded with zeros when they are gathered.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from components.datasets import arrays


class Writer:
    """Writes rows to <path>.values.npy and <path>.shapes.npy; if the block raises, `load` rejects them."""

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = (), dimensions: int = 1) -> None:
        """Open the files.

        Args:
            path: The files' path without their suffixes.
            dtype: Type of the values.
            row_shape: Shape of the trailing dimensions, which are the same in all rows.
            dimensions: Number of leading dimensions in which rows differ: 1 for sequences, 2 for images.
        """
        self._files = ExitStack()
        values, shapes = _paths(path)
        self._dimensions = dimensions
        self._values = self._files.enter_context(arrays.Writer(values, dtype, row_shape))
        self._shapes = self._files.enter_context(arrays.Writer(shapes, np.int64, (dimensions,)))

    @property
    def rows(self) -> int:
        """Number of rows so far."""
        return self._shapes.rows

    @property
    def sha256(self) -> str:
        """Hash of the type, the values and the shapes so far, in hexadecimal."""
        return arrays.joint_sha256(self._values, self._shapes)

    def append(self, row: NDArray[np.generic]) -> None:
        """Append a row (L, *row_shape) or (H, W, *row_shape) of the file's type; L may be 0."""
        shape = row.shape[: self._dimensions]
        self._values.append(row.reshape(-1, *row.shape[self._dimensions :]))
        self._shapes.append(np.array([shape], np.int64))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)


@dataclass(frozen=True)
class Ragged:
    """Rows that differ in length."""

    values: Tensor  # (all rows' elements, *row_shape)
    shapes: Tensor  # (N, dimensions), int64, on the CPU
    starts: Tensor  # (N,), int64, on the CPU: the index in the values at which each row begins

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int, /) -> Tensor:
        """Return one row, (L, *row_shape) or (H, W, *row_shape)."""
        shape = self.shapes[index].tolist()
        start = int(self.starts[index])
        count = int(np.prod(shape))
        return self.values[start : start + count].view(*shape, *self.values.shape[1:])

    def padded(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Gather rows, padded with zeros to the size of the largest.

        Args:
            indices: (B,), int64, on the CPU.

        Returns:
            The rows, (B, Lmax, *row_shape) or (B, Hmax, Wmax, *row_shape), and their shapes, (B,) or (B, 2), int64;
            both on the values' device.
        """
        shapes = self.shapes[indices]
        largest = shapes.amax(0).tolist() if len(indices) else [0] * shapes.shape[1]
        rows = self.values.new_zeros((len(indices), *largest, *self.values.shape[1:]))
        for number, index in enumerate(indices.tolist()):
            row = self[index]
            inside = tuple(slice(size) for size in row.shape[: len(largest)])
            rows[number][inside] = row
        sizes = shapes[:, 0] if shapes.shape[1] == 1 else shapes
        if rows.is_cuda:
            sizes = sizes.pin_memory()  # so that the copy does not wait for the GPU
        return rows, sizes.to(rows.device, non_blocking=True)

    def to(self, device: torch.device) -> Ragged:
        """Move the values to a device; the shapes stay on the CPU, where batches are planned."""
        return Ragged(self.values.to(device), self.shapes, self.starts)


def load(path: Path) -> Ragged:
    """Return the rows that `Writer` wrote at `path`, with memory-mapped values.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    values, shapes = (arrays.load(file) for file in _paths(path))
    counts = shapes.prod(1)
    return Ragged(values, shapes.clone(), counts.cumsum(0) - counts)


def _paths(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}.values.npy"), path.with_name(f"{path.name}.shapes.npy")
