"""How far two utterances of a text are apart: mel-cepstral distortion along the best alignment (Kubichek 1993).

The cepstra are those of the log-mel spectrogram, by a discrete cosine transform such that log |H(w)| is the sum of
c_m cos(m w): coefficients 1 to 13, so loudness does not count. Silence at both ends is removed first. Dynamic time
warping pairs the frames. The distortion of a pair, 10 / ln 10 * sqrt(2 * sum of squared differences), is the root
mean square of the difference of smooth spectra in dB. Other recipes, with other cepstra, give other numbers.
"""

import math

import numpy as np
from numpy.typing import NDArray

COEFFICIENTS = 13
DECIBELS = 10 / math.log(10)
"""Decibels of power in a neper of power."""
SILENT = 40.0
"""Frames that are quieter by more decibels than the loudest one are silence at the ends."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def sounding(bands: Floats) -> slice:
    """Return the frames without silence at the ends of a log-mel spectrogram (T, M), in nepers of amplitude."""
    loudness = DECIBELS * np.logaddexp.reduce(2 * bands, axis=1)
    loud = np.flatnonzero(loudness > loudness.max() - SILENT)
    return slice(int(loud[0]), int(loud[-1]) + 1)


def cepstra(bands: Floats) -> Floats:
    """Return the cepstra of a log-mel spectrogram (T, M), in nepers of amplitude: (T, COEFFICIENTS)."""
    count = bands.shape[1]
    angles = np.pi * np.outer(np.arange(count) + 0.5, np.arange(1, COEFFICIENTS + 1)) / count
    found: Floats = bands @ (2 / count * np.cos(angles))
    return found


def distances(one: Floats, other: Floats) -> Floats:
    """Return the distortion in dB of each pair of frames of cepstra (S, D) and (T, D): (S, T)."""
    squares = np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * one @ other.T
    found: Floats = DECIBELS * np.sqrt(2 * np.maximum(squares, 0))
    return found


def warped(cost: Floats) -> tuple[Indices, Indices]:
    """Return the rows and the columns of the cheapest path through (S, T), from the first to the last corner.

    A step goes to the next row, the next column, or both. Diagonals are computed one after
    the other, each at once.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        best = np.minimum(np.minimum(total[i - 1, j], total[i, j - 1]), total[i - 1, j - 1])
        total[i, j] = cost[i - 1, j - 1] + best
    i, j = rows, columns
    path = [(i, j)]
    while (i, j) != (1, 1):
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        i, j = min(steps, key=lambda each: total[each])
        path.append((i, j))
    found: Indices = np.array(path[::-1], np.int64) - 1
    return found[:, 0], found[:, 1]
