"""Figures of synthesised speech, drawn by matplotlib without pyplot; texts are drawn literally."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 100
"""Most characters of a text that are drawn."""


class Pair(NamedTuple):
    """A recording and its text as the voice speaks it."""

    text: str
    recorded: NDArray[np.float64]
    """Log-mel spectrogram, (S, M)."""
    synthesised: NDArray[np.float64]
    """(T, M)."""
    hop: float
    """Seconds between frames."""


class Alignment(NamedTuple):
    """Which character of a recording's text is spoken when."""

    text: str
    shares: NDArray[np.float32]
    """Each character's probability at each frame, (T, N)."""
    path: NDArray[np.int64]
    """The character of each frame on the likeliest path, (T,)."""
    hop: float


def spectrograms(pairs: Sequence[Pair]) -> "Figure":
    """Draw recordings on the left and what the voice makes of their texts on the right, on one scale."""
    figure = figures.blank(10, 0.8 + 1.7 * len(pairs))
    figure.suptitle("Recorded on the left, synthesised on the right")
    grid = figure.subplots(len(pairs), 2, squeeze=False, sharey=True)
    for (left, right), pair in zip(grid, pairs, strict=True):
        loudest = float(pair.recorded.max())
        for axes, bands in ((left, pair.recorded), (right, pair.synthesised)):
            extent = (0, len(bands) * pair.hop, 0, bands.shape[1])
            scale = {"vmin": loudest - 8, "vmax": loudest}
            axes.imshow(bands.T, cmap="magma", origin="lower", aspect="auto", extent=extent, **scale)
            axes.set_yticks([])
        left.set_ylabel("Mel bands", fontsize=8)
        left.set_title(f"“{figures.drawable(pair.text, LONGEST)}”", fontsize=8, loc="left", parse_math=False)
    figure.supxlabel("Seconds")
    return figure


def alignments(found: Sequence[Alignment]) -> "Figure":
    """Draw the probabilities of the characters at the frames of recordings, and the likeliest path."""
    figure = figures.blank(10, 0.8 + 2.6 * len(found))
    figure.suptitle("Which character is spoken when, as the network aligned it")
    for axes, each in zip(figure.subplots(len(found), 1, squeeze=False).flat, found, strict=True):
        seconds, letters = len(each.path) * each.hop, len(each.text)
        extent = (0, seconds, -0.5, letters - 0.5)
        axes.imshow(each.shares.T, cmap="Blues", origin="lower", aspect="auto", extent=extent, vmin=0, vmax=1)
        axes.plot((np.arange(len(each.path)) + 0.5) * each.hop, each.path, color="tab:orange", linewidth=1)
        size = 6 if letters <= 60 else 4
        names = [figures.drawable(letter, 1) for letter in each.text]
        axes.set_yticks(range(letters), labels=names, fontsize=size, parse_math=False)
        axes.set_title(f"“{figures.drawable(each.text, LONGEST)}”", fontsize=8, loc="left", parse_math=False)
    figure.supxlabel("Seconds")
    return figure
