"""Sphinx's cepstra are read in either byte order, and what is none is rejected."""

import numpy as np
import pytest
import scipy.fft
import torch

from components.datasets.ingest import Unusable
from components.sound import cepstra


def file(values: np.ndarray, order: str = ">") -> bytes:
    return np.array(values.size, f"{order}i4").tobytes() + values.astype(f"{order}f4").tobytes()


VALUES = np.random.default_rng(0).standard_normal((20, 13)).astype(np.float32)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_file_has_frames_of_13_coefficients(order):
    assert np.array_equal(cepstra.read(file(VALUES, order), 100), VALUES)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b"\0\0", "ends in its header"),
        (file(VALUES)[:-4], "its header says 260 values, and 259 are there"),
        (file(VALUES[:, :7]), "140 values are no whole number of frames of 13"),
        (file(VALUES * np.nan), "not finite, or huge"),
        (b"RIFF" + bytes(40), "not Sphinx cepstra"),
    ],
)
def test_what_is_no_such_file_is_rejected_with_the_reason(data, reason):
    with pytest.raises(Unusable, match=reason):
        cepstra.read(data, 100)


def test_too_many_frames_are_rejected():
    with pytest.raises(Unusable, match="too long: 20 frames are over 19"):
        cepstra.read(file(VALUES), 19)


def test_cepstra_become_the_smooth_spectrum_of_which_they_are_the_cosine_transform():
    smooth = np.zeros((5, 40))
    smooth[:, :13] = VALUES[:5]
    expected = scipy.fft.dct(smooth, type=3) / 2 + smooth[:, :1] / 2
    found = cepstra.Spectrum(40)(torch.from_numpy(VALUES[None, :5]))[0].numpy()
    assert found == pytest.approx(expected, abs=1e-4)
