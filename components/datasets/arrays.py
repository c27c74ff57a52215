"""Arrays passed between stages: `.npy` files written row by row and read as memory-mapped tensors."""

import ctypes
import hashlib
import io
import mmap
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import ArrayLike, DTypeLike

from components.errors import PedigreeError


class Writer:
    """Writes rows to a new `.npy` file whose number of rows is known only at the end.

    The header is first written for zero rows and corrected when the block succeeds, as NumPy leaves room for a
    longer first axis (`GROWTH_AXIS_MAX_DIGITS`). If the block raises, the file keeps its first header, and `load`
    rejects it as damaged.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self.rows = 0
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._hash = hashlib.sha256(f"{self._dtype.str} {row_shape}".encode())
        self._file = path.open("wb")
        self._write_header()

    @property
    def sha256(self) -> str:
        """Hash of the type, the shape of a row and all rows so far, in hexadecimal."""
        return self._hash.hexdigest()

    def append(self, rows: ArrayLike) -> None:
        """Append rows (n, *row_shape) of the file's type."""
        array = np.asarray(rows)
        assert array.shape[1:] == self._row_shape, f"rows are {array.shape[1:]}, not {self._row_shape}"
        assert array.dtype == self._dtype, f"rows are {array.dtype}, not {self._dtype}"
        data = array.tobytes()
        self._file.write(data)
        self._hash.update(data)
        self.rows += len(array)

    def _write_header(self) -> None:
        header = io.BytesIO()
        shape = (self.rows, *self._row_shape)
        npy.write_array_header_1_0(
            header, {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        )
        self._file.seek(0)
        self._file.write(header.getvalue())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._write_header()


class Hashed(Protocol):
    """An array that is being written, or several."""

    @property
    def sha256(self) -> str:
        """Hash of what was written so far, in hexadecimal."""


def joint_sha256(*writers: Hashed) -> str:
    """Return one hash of several arrays; it depends on their order."""
    return hashlib.sha256(" ".join(writer.sha256 for writer in writers).encode()).hexdigest()


def load(path: Path) -> torch.Tensor:
    """Return a tensor on the memory-mapped file; writes to the tensor do not change the file.

    Raises:
        PedigreeError: the file is missing or damaged.
    """
    cause: Exception | None = None
    try:
        # Copy-on-write, as torch warns of read-only arrays.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        if path.stat().st_size == array.offset + array.nbytes:
            return torch.from_numpy(array)
    except FileNotFoundError:
        raise PedigreeError(f"{path} is missing: run prepare again") from None
    except OSError:  # an error of the disk, not of the file's content
        raise
    except Exception as error:  # a damaged header causes ValueError, EOFError, TokenError, SyntaxError, …
        cause = error
    raise PedigreeError(f"{path} is damaged: run prepare again") from cause


_WILLNEED = 3
"""MADV_WILLNEED of madvise(2)."""


def read_ahead(tensor: torch.Tensor, rows: torch.Tensor) -> None:
    """Ask the operating system to read rows of a memory-mapped tensor in the background.

    Without this, every missing page would block the reader when it is needed. This is only advice: a system without
    madvise, or that ignores it, still reads the pages on demand.

    Args:
        tensor: A tensor of any shape; nothing is done for one on a GPU.
        rows: (R,), indices along the first dimension.
    """
    advise = getattr(_LIBC, "madvise", None)
    size = tensor[0].numel() * tensor.element_size()
    if advise is None or tensor.is_cuda or size < mmap.PAGESIZE // 8 or not tensor.is_contiguous():
        return
    begin = tensor.data_ptr()
    for row in rows.tolist():
        first = (begin + row * size) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(ctypes.c_void_p(first), ctypes.c_size_t(begin + (row + 1) * size - first), _WILLNEED)


_LIBC = ctypes.CDLL(None)
