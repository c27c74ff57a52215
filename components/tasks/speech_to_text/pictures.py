"""Figures of transcripts, drawn by matplotlib without pyplot; texts are drawn literally."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components import figures
from components.tasks.speech_to_text.decoding import Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 30
"""Most characters of a word or name that are drawn."""


class Band(NamedTuple):
    """Test recordings that have something in common."""

    recordings: int
    wer: float


class Timed(NamedTuple):
    """A recording with its words."""

    name: str
    spectrogram: NDArray[np.float32]  # (T, M)
    seconds: float
    words: Sequence[Word]
    reference: str


def timings(recordings: Sequence[Timed]) -> "Figure":
    """Draw the words over the spectrograms, where they begin and end."""
    figure = figures.blank(10, 1.1 + 1.9 * max(len(recordings), 1))
    figure.suptitle("Words where the network heard them")
    if not recordings:
        figure.text(0.5, 0.4, "There is no recording with words.", ha="center")
        return figure
    for axes, each in zip(figure.subplots(len(recordings), 1, squeeze=False).flat, recordings, strict=True):
        _draw(axes, each)
    figure.supxlabel("Seconds")
    return figure


def _draw(axes: "Axes", each: Timed) -> None:
    bands = each.spectrogram.shape[1]
    extent = (0, each.seconds, 0, bands)
    axes.imshow(each.spectrogram.T, cmap="Greys", origin="lower", aspect="auto", extent=extent)
    for number, word in enumerate(each.words):
        colour = ("tab:blue", "tab:orange")[number % 2]
        axes.axvspan(word.start, word.end, color=colour, alpha=0.2, linewidth=0)
        axes.text(
            *((word.start + word.end) / 2, bands * 1.03, figures.drawable(word.word, LONGEST)),
            ha="center", va="bottom", fontsize=8, color=colour, parse_math=False,
        )  # fmt: skip
    axes.set_yticks([])
    axes.set_ylabel("Mel bands", fontsize=8)
    said = f"{figures.drawable(each.name, LONGEST)}: “{figures.drawable(each.reference, 90)}”"
    axes.set_title(said, fontsize=8, loc="left", pad=16, parse_math=False)


def rates(bands: Mapping[str, Band], title: str) -> "Figure":
    """Draw the word error rate of each of some groups of recordings, with their numbers."""
    figure = figures.blank(7, 1.4 + 0.3 * len(bands))
    figure.suptitle(title)
    axes = figure.add_subplot(xlabel="Word error rate")
    rows = np.arange(len(bands))
    bars = axes.barh(rows, [band.wer for band in bands.values()], color="lightsteelblue")
    axes.bar_label(bars, fmt="{:.1%}", padding=3, fontsize=8)
    names = [f"{figures.drawable(name, LONGEST)} ({band.recordings:,})" for name, band in bands.items()]
    axes.set_yticks(rows, labels=names, parse_math=False)
    axes.set_xlim(0, max(1.15 * max((band.wer for band in bands.values()), default=0), 0.01))
    axes.invert_yaxis()
    return figure
