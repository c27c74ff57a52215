"""Figures of classified texts, drawn by matplotlib without pyplot; texts are drawn literally."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components import figures
from components.text.attribution import Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, LINES = 96, 4
"""Most letters of a line and most lines of a text that are drawn."""
LETTER = 0.0765
"""Width of a letter of 9 points in inches."""


class Band(NamedTuple):
    """Test texts of similar length."""

    texts: int
    accuracy: float


class Explained(NamedTuple):
    """A text and the words that decide on its class."""

    caption: str
    words: Sequence[Word]


def by_length(bands: Mapping[str, Band]) -> "Figure":
    """Draw the accuracy of texts of each length, and how many there are."""
    figure = figures.blank(6, 4.5)
    figure.suptitle("Accuracy by length of the text")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    places = np.arange(len(bands))
    bars = upper.bar(places, [band.accuracy for band in bands.values()], 0.6, color="lightsteelblue")
    upper.bar_label(bars, fmt="{:.1%}", fontsize=8, padding=2)
    counts = lower.bar(places, [band.texts for band in bands.values()], 0.6, color="lightgrey")
    lower.bar_label(counts, fmt="{:,.0f}", fontsize=8, padding=2)
    upper.set(ylabel="Accuracy", ylim=(0, 1.1), yticks=np.linspace(0, 1, 6))
    lower.set(ylabel="Texts")
    lower.margins(y=0.3)
    lower.set_xticks(places, labels=[*bands], fontsize=8)
    return figure


def out_of_scope(inside: NDArray[np.float64], outside: NDArray[np.float64], auc: float) -> "Figure":
    """Draw how often the largest probability has which value, for texts of a class and for those of none."""
    figure = figures.blank(6, 4)
    axes = figure.add_subplot(xlabel="Largest probability", ylabel="Share of the texts", xlim=(0, 1))
    for values, name, colour in ((inside, "of a class", "tab:blue"), (outside, "of none", "tab:red")):
        weights = np.full(len(values), 1 / max(len(values), 1))
        axes.hist(
            values,
            bins=20,
            range=(0, 1),
            weights=weights,
            alpha=0.6,
            color=colour,
            label=f"{name} ({len(values):,})",
        )
    axes.legend(loc="upper left")
    figure.suptitle(f"Texts of a class and texts of none: AUROC {auc:.3f}")
    return figure


def words(explained: Sequence[Explained], classes: str) -> "Figure":
    """Draw texts with each word on a colour: blue speaks for the class that was predicted, red against it.

    Args:
        explained: The texts.
        classes: What the caption of a text says.
    """
    from matplotlib import colormaps

    texts = [(each, _lines(each.words)) for each in explained]
    height = sum(len(lines) + 1.7 for _, lines in texts)
    width = COLUMNS * LETTER
    figure = figures.blank(width + 0.4, 0.24 * height + 0.9)
    figure.suptitle(f"The words that decide: blue for the predicted class, red against it\n{classes}", fontsize=10)
    axes = figure.add_subplot(xlim=(0, COLUMNS), ylim=(height, 0))
    axes.set_axis_off()
    shades, row = colormaps["RdBu"], 0.8
    for each, lines in texts:
        axes.text(0, row, figures.drawable(each.caption, COLUMNS), fontsize=9, weight="bold", parse_math=False)
        strongest = max([abs(word.weight) for word in each.words], default=0) or 1.0
        for line in lines:
            row += 1
            column = 0
            for word in line:
                shade = shades(0.5 + 0.3 * word.weight / strongest)
                box: dict[str, Any] = {"facecolor": shade, "edgecolor": "none", "pad": 1.2}
                axes.text(column, row, word.text, bbox=box, family="monospace", fontsize=9, parse_math=False)
                column += len(word.text) + 1
        row += 1.7
    return figure


def _lines(given: Sequence[Word]) -> list[list[Word]]:
    """Return the words of each line; long words and long texts are cut."""
    lines: list[list[Word]] = [[]]
    used = 0
    for word in given:
        text = figures.drawable(word.text, 40)
        if lines[-1] and used + len(text) > COLUMNS:
            if len(lines) == LINES:
                lines[-1][-1] = Word("…", 0.0)
                break
            lines.append([])
            used = 0
        lines[-1].append(Word(text, word.weight))
        used += len(text) + 1
    return lines
