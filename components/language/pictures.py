"""What evaluation draws of a text's losses: matplotlib without pyplot, letters as they are written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, COLUMNS = 16, 80
"""Of the passage, in letters."""
SHOWN_AS = {"\n": "↵", "\t": "→"}
DARK = 0.7
"""Share of the colour bar above which letters are white."""


@dataclass(frozen=True)
class Bands:
    """Tokens grouped by a number; groups without tokens are left out."""

    names: list[str]
    count: list[int]
    loss: list[float]
    """Mean, in nats a token."""


def bands(groups: Bands, title: str, label: str) -> "Figure":
    """Draw the mean loss of groups of tokens, and how large a share of all each group is; `label` says by what."""
    names, loss = groups.names, groups.loss
    figure = _figure(7, 5)
    figure.suptitle(title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    places, share = range(len(names)), np.array(groups.count) / sum(groups.count)
    upper.bar_label(upper.bar(places, loss, color="lightsteelblue"), fmt="{:.2f}", fontsize=8, padding=2)
    lower.bar_label(lower.bar(places, share, color="lightgrey"), fmt="{:.1%}", fontsize=7, padding=2)
    upper.set_ylabel("Loss (nats a token)")
    lower.set(xlabel=label, ylabel="Share of tokens")
    for axes in (upper, lower):
        axes.margins(y=0.15)
    turn: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(names) > 6 else {}
    lower.set_xticks(places, labels=names, **turn)
    return figure


def passage(tokens: Iterable[tuple[str, float]], chance: float) -> "Figure":
    """Draw a text with each token on a background that tells its loss.

    Args:
        tokens: The text's tokens and their losses in nats, NaN for one that has none; no more are taken than
            there is room for.
        chance: The loss of a guess among all tokens alike: the end of the scale.
    """
    cells = list(takewhile(lambda cell: cell.row < ROWS, _cells(tokens)))
    losses = np.full((cells[-1].row + 1, COLUMNS), np.nan)
    for cell in cells:
        losses[cell.row, cell.column] = cell.loss
    figure = _figure(0.12 * COLUMNS + 0.8, 0.24 * len(losses) + 1)
    figure.suptitle("The test text's beginning, and how surprising the network finds each token")
    axes = figure.add_subplot()
    axes.set_axis_off()
    picture = axes.imshow(losses, cmap="YlOrRd", vmin=0, vmax=chance, aspect="auto")
    figure.colorbar(picture, label="Loss (nats)", extend="max", fraction=0.03, pad=0.01)
    x, y = np.array([(cell.column, cell.row) for cell in cells if cell.first]).T - 0.5
    axes.vlines(x, y, y + 1, color="white", linewidth=1)
    style: dict[str, Any] = {"ha": "center", "va": "center", "family": "monospace", "fontsize": 9}
    style["in_layout"] = False  # the letters lie inside the axes: to measure each takes long
    for cell in cells:
        if cell.letter == " ":
            continue
        letter = SHOWN_AS.get(cell.letter, cell.letter if cell.letter.isprintable() else "?")
        colour = "white" if cell.loss > DARK * chance else "black"
        axes.text(cell.column, cell.row, letter, color=colour, **style)
    return figure


class _Cell(NamedTuple):
    """A letter's place in the passage."""

    row: int
    column: int
    letter: str
    loss: float
    first: bool
    """Whether a token begins here."""


def _cells(tokens: Iterable[tuple[str, float]]) -> Iterator[_Cell]:
    """Yield the letters of tokens, a new row where a line ends and where a token would not fit."""
    row = column = 0
    for piece, loss in tokens:
        if column + len(piece) > COLUMNS >= len(piece):
            row, column = row + 1, 0
        for place, letter in enumerate(piece):
            yield _Cell(row, column, letter, loss, place == 0)
            column += 1
            if letter == "\n" or column == COLUMNS:
                row, column = row + 1, 0


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
