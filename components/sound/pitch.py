"""The fundamental frequency of voiced speech, by YIN (de Cheveigné and Kawahara 2002)."""

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 60.0, 500.0
"""Range of the fundamental frequency in Hz, which most speakers stay in."""
THRESHOLD = 0.15
"""A lag is a period if the normalised difference falls below this value; the paper has 0.1."""
LEAST_LOUD = 0.02
"""Frames whose root mean square is below this share of the loudest one's are not voiced."""
AROUND, JUMP = 4, 1.4
"""Frames on each side with which a frame is compared, and the ratio from which it is an error: half an octave."""
TOGETHER = 1024
"""Frames that are analysed at once."""

Floats = NDArray[np.float64]


def frequencies(sound: NDArray[np.int16], rate: int, hop: int) -> NDArray[np.float32]:
    """Return the fundamental frequency in Hz of each frame, (N // hop + 1,); 0 where it is not voiced.

    Args:
        sound: Samples, (N,).
        rate: Samples per second.
        hop: Samples from the centre of a frame to the next one's; the first is at the beginning.
    """
    most = int(rate / LOWEST) + 2  # lags of a frame
    size = 2 * most
    padded = np.pad(sound.astype(np.float64), (size // 2, size // 2 + size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][: len(sound) // hop + 1]
    loudness = np.sqrt(np.square(frames).mean(1))
    found = [_of_frames(frames[first : first + TOGETHER], rate, most) for first in range(0, len(frames), TOGETHER)]
    loud = loudness > LEAST_LOUD * max(float(loudness.max()), 1.0)
    return _without_jumps(np.where(loud, np.concatenate(found), 0)).astype(np.float32)


def _without_jumps(found: Floats) -> Floats:
    """Return frequencies (T,), with 0 for those that are far from the median of the voiced frames around them.

    Where a sound changes, a period seems to be twice as long, or half as long.
    """
    padded = np.pad(np.where(found > 0, found, np.nan), AROUND, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1)
    voiced = found > 0
    ratio = found[voiced] / np.nanmedian(around[voiced], axis=1)
    kept = found.copy()
    kept[voiced] = np.where((ratio > 1 / JUMP) & (ratio < JUMP), found[voiced], 0)
    return kept


def _of_frames(frames: Floats, rate: int, most: int) -> Floats:
    """Return the fundamental frequency of frames (T, 2 * most), or 0."""
    difference = _differences(frames, most)  # (T, most)
    lags = np.arange(most)
    mean = difference.cumsum(1) / np.maximum(lags, 1)
    normalised = np.where(lags == 0, 1.0, difference / np.maximum(mean, 1e-12))
    normalised[:, : int(rate / HIGHEST)] = 1
    # The first local minimum below the threshold: lower ones at its multiples are other octaves.
    dips = (normalised[:, 1:-1] <= normalised[:, :-2]) & (normalised[:, 1:-1] < normalised[:, 2:])
    dips &= normalised[:, 1:-1] < THRESHOLD
    lag = dips.argmax(1) + 1
    rows = np.arange(len(frames))
    before, at, after = (normalised[rows, lag + step] for step in (-1, 0, 1))
    bend = before - 2 * at + after
    offset = np.where(bend > 0, (before - after) / np.maximum(2 * bend, 1e-12), 0)  # the vertex of a parabola
    return np.where(dips.any(1), rate / (lag + offset), 0.0)


def _differences(frames: Floats, most: int) -> Floats:
    """Return the squared differences of each frame's first half and itself later by each lag, (T, most)."""
    size = frames.shape[1]
    points = 1 << (2 * size - 1).bit_length()
    head = np.fft.rfft(frames[:, :most], points)
    products = np.fft.irfft(head.conj() * np.fft.rfft(frames, points), points)[:, :most]
    energies = np.pad(np.square(frames).cumsum(1), ((0, 0), (1, 0)))
    later = energies[:, most : 2 * most] - energies[:, :most]
    found: Floats = np.maximum(later[:, :1] + later - 2 * products, 0)
    return found
