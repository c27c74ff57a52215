"""Figures of a text's losses, drawn by matplotlib without pyplot; letters are drawn literally."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from components import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, COLUMNS = 16, 80
"""Size of the passage in characters."""
SHOWN_AS = {"\n": "↵", "\t": "→"}
DARK = 0.7
"""Share of the colour scale above which letters are white."""


@dataclass(frozen=True)
class Bands:
    """Tokens grouped by a number; empty groups are omitted."""

    names: list[str]
    count: list[int]
    loss: list[float]
    """Mean loss in nats per token."""


def bands(groups: Bands, title: str, label: str) -> "Figure":
    """Draw the mean loss of groups of tokens, and each group's share of all tokens; `label` is the grouping."""
    names, loss = groups.names, groups.loss
    figure = figures.blank(7, 5)
    figure.suptitle(title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    columns, share = range(len(names)), np.array(groups.count) / sum(groups.count)
    upper.bar_label(upper.bar(columns, loss, color="lightsteelblue"), fmt="{:.2f}", fontsize=8, padding=2)
    lower.bar_label(lower.bar(columns, share, color="lightgrey"), fmt="{:.1%}", fontsize=7, padding=2)
    upper.set_ylabel("Loss (nats per token)")
    lower.set(xlabel=label, ylabel="Share of tokens")
    for axes in (upper, lower):
        axes.margins(y=0.15)
    turn: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(names) > 6 else {}
    lower.set_xticks(columns, labels=names, **turn)
    return figure


def passage(tokens: Iterable[tuple[str, float]], chance: float) -> "Figure":
    """Draw a text with the loss of each token as its background colour.

    Args:
        tokens: The text's tokens and their losses in nats, NaN if a token has none; tokens that do not fit are not
            consumed.
        chance: The loss of a uniform guess, which is the end of the colour scale.
    """
    cells = list(takewhile(lambda cell: cell.row < ROWS, _cells(tokens)))
    losses = np.full((cells[-1].row + 1, COLUMNS), np.nan)
    for cell in cells:
        losses[cell.row, cell.column] = cell.loss
    figure = figures.blank(0.12 * COLUMNS + 0.8, 0.24 * len(losses) + 1)
    figure.suptitle("The test text's beginning, and how surprising the network finds each token")
    axes = figure.add_subplot()
    axes.set_axis_off()
    picture = axes.imshow(losses, cmap="YlOrRd", vmin=0, vmax=chance, aspect="auto")
    figure.colorbar(picture, label="Loss (nats)", extend="max", fraction=0.03, pad=0.01)
    x, y = np.array([(cell.column, cell.row) for cell in cells if cell.first]).T - 0.5
    axes.vlines(x, y, y + 1, color="white", linewidth=1)
    style: dict[str, Any] = {"ha": "center", "va": "center", "family": "monospace", "fontsize": 9}
    style["in_layout"] = False  # measuring each letter would be slow, and all are inside the axes
    for cell in cells:
        if cell.letter == " ":
            continue
        letter = SHOWN_AS.get(cell.letter, cell.letter if cell.letter.isprintable() else "?")
        colour = "white" if cell.loss > DARK * chance else "black"
        axes.text(cell.column, cell.row, letter, color=colour, **style)
    return figure


class _Cell(NamedTuple):
    """A letter and its position in the passage."""

    row: int
    column: int
    letter: str
    loss: float
    first: bool
    """Whether a token begins here."""


def _cells(tokens: Iterable[tuple[str, float]]) -> Iterator[_Cell]:
    """Yield the letters of tokens, with a new row after a line's end and before a token that does not fit."""
    row = column = 0
    for piece, loss in tokens:
        if column + len(piece) > COLUMNS >= len(piece):
            row, column = row + 1, 0
        for index, letter in enumerate(piece):
            yield _Cell(row, column, letter, loss, index == 0)
            column += 1
            if letter == "\n" or column == COLUMNS:
                row, column = row + 1, 0
