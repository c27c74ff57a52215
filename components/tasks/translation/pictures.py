"""Figures of translations, drawn by matplotlib without pyplot; texts are drawn literally."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

END = "(end)"
"""Stands for the token at the end of a source."""
LONGEST = 16
"""Most characters of a token that are drawn."""


class Band(NamedTuple):
    """Test texts of similar length."""

    texts: int
    bleu: float
    chrf: float


class Map(NamedTuple):
    """The attention for one translation."""

    weights: NDArray[np.float32]  # (T, S): for each token of the translation, shares of the source's
    source: Sequence[str]
    """S tokens."""
    translation: Sequence[str]
    """T tokens."""


def by_length(bands: Mapping[str, Band]) -> "Figure":
    """Draw BLEU and chrF++ of the texts of each length, and how many there are."""
    figure = figures.blank(7, 5)
    figure.suptitle("Results by the length of the source")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    places = np.arange(len(bands))
    for shift, name in ((-0.2, "bleu"), (0.2, "chrf")):
        label = {"bleu": "BLEU", "chrf": "chrF++"}[name]
        bars = upper.bar(places + shift, [getattr(band, name) for band in bands.values()], 0.4, label=label)
        upper.bar_label(bars, fmt="{:.1f}", fontsize=8, padding=2)
    counts = lower.bar(places, [band.texts for band in bands.values()], color="lightgrey")
    lower.bar_label(counts, fmt="{:,.0f}", fontsize=8, padding=2)
    upper.set_ylabel("Score")
    upper.legend()
    lower.set(xlabel="Length of the source", ylabel="Texts")
    for axes in (upper, lower):
        axes.margins(y=0.15)
    lower.set_xticks(places, labels=[*bands])
    return figure


def attention(maps: Sequence[Map], source: str, target: str) -> "Figure":
    """Draw which tokens of the source are read for each token of its translation, a map for each text.

    Args:
        maps: The texts.
        source: Name of the source's language.
        target: Name of the translation's.
    """
    figure = figures.blank(9, 8)
    figure.suptitle("What the last layer reads of the source (columns) for each token of its translation (rows)")
    if not maps:
        figure.text(0.5, 0.5, "No test text has a suitable length.", ha="center")
        return figure
    columns = 2 if len(maps) > 1 else 1
    grid = figure.subplots(-(-len(maps) // columns), columns, squeeze=False).flat
    for axes, each in zip(grid, maps, strict=False):
        axes.imshow(each.weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        turned = {"rotation": 60, "ha": "right", "rotation_mode": "anchor", "fontsize": 8, "parse_math": False}
        axes.set_xticks(range(len(each.source)), labels=[_shown(piece) for piece in each.source], **turned)
        pieces = [_shown(piece) for piece in each.translation]
        axes.set_yticks(range(len(pieces)), labels=pieces, fontsize=8, parse_math=False)
    for axes in [*grid][len(maps) :]:
        axes.set_axis_off()
    figure.supxlabel(source, parse_math=False)
    figure.supylabel(target, parse_math=False)
    return figure


def _shown(piece: str) -> str:
    return figures.drawable(piece, LONGEST).replace(" ", "·")
