"""Mel-frequency cepstra that CMU Sphinx computed, as given in place of sound, and what they say of its spectrum."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.datasets.ingest import Unusable

COEFFICIENTS = 13
"""Of each frame, Sphinx's default."""
LARGEST = 1e4
"""Largest coefficient; larger ones are numbers of another format."""


def read(data: bytes, most: int) -> NDArray[np.float32]:
    """Return the cepstra of a `.mfc` file, (frames, COEFFICIENTS).

    The file has the number of its values, int32, and the values, float32, both in either byte order
    (github.com/cmusphinx/sphinxbase, `s2mfc`).

    Args:
        data: The bytes of the file.
        most: Largest number of frames.

    Raises:
        Unusable: the file is none, is damaged, or has too many frames.
    """
    if len(data) < 4:
        raise Unusable("zero bytes" if not data else "unreadable: it ends in its header")
    counts = {order: int(np.frombuffer(data, f"{order}u4", 1)[0]) for order in "><"}
    order, count = min(counts.items(), key=lambda each: abs(4 + 4 * each[1] - len(data)))
    if 4 + 4 * count != len(data):
        there = (len(data) - 4) / 4
        raise Unusable(f"not Sphinx cepstra: its header says {count:,} values, and {there:,g} are there")
    values = np.frombuffer(data, f"{order}f4", count, 4).astype(np.float32)
    if not count or count % COEFFICIENTS:
        raise Unusable(f"{count:,} values are no whole number of frames of {COEFFICIENTS}")
    if not np.isfinite(values).all() or np.abs(values).max() > LARGEST:
        raise Unusable("unreadable: some of its values are not finite, or huge")
    if (frames := count // COEFFICIENTS) > most:
        raise Unusable(f"too long: {frames:,} frames are over {most:,}")
    return values.reshape(frames, COEFFICIENTS)


class Spectrum(nn.Module):
    """The smooth log-mel spectrum of cepstra, of which they are the first cosine coefficients.

    Unlike cepstra, neighbouring bands are alike, as convolutions expect.

    Args:
        bands: Number of bands.
    """

    basis: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        place = (torch.arange(bands) + 0.5) / bands
        basis = torch.cos(math.pi * torch.arange(COEFFICIENTS)[:, None] * place)  # (coefficients, bands)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, cepstra: Tensor) -> Tensor:
        """Map (B, T, COEFFICIENTS) to (B, T, bands)."""
        return cepstra @ self.basis
