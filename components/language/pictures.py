"""What evaluation draws of a text's losses: matplotlib without pyplot, letters as they are written."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, COLUMNS = 16, 80
"""Of the passage, in letters."""
SHOWN_AS = {"\n": "↵", "\t": "→"}
DARK = 0.6
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
    letters, losses, edges = _laid_out(tokens)
    figure = _figure(0.12 * COLUMNS + 0.8, 0.24 * len(losses) + 1)
    figure.suptitle("The test text's beginning, and how surprising the network finds each token")
    axes = figure.add_subplot()
    axes.set_axis_off()
    picture = axes.imshow(losses, cmap="YlOrRd", vmin=0, vmax=chance, aspect="auto")
    figure.colorbar(picture, label="Loss (nats)", extend="max", fraction=0.03, pad=0.01)
    if edges:
        x, y = np.array(edges).T - 0.5
        axes.vlines(x, y, y + 1, color="white", linewidth=1)
    for row, column, letter in letters:
        colour = "white" if losses[row, column] > DARK * chance else "black"
        axes.text(
            column, row, letter, color=colour, ha="center", va="center", family="monospace", fontsize=9,
            parse_math=False,
        )  # fmt: skip
    return figure


def _laid_out(
    tokens: Iterable[tuple[str, float]],
) -> tuple[list[tuple[int, int, str]], NDArray[np.float64], list[tuple[int, int]]]:
    """Return each letter's row, column and shape, the loss at each place, and where tokens begin (x, y)."""
    letters, edges = [], []
    losses = np.full((ROWS, COLUMNS), np.nan)
    row = column = 0
    for piece, loss in tokens:
        edges.append((column, row))
        for letter in piece:
            losses[row, column] = loss
            if letter != " ":
                letters.append((row, column, SHOWN_AS.get(letter, letter if letter.isprintable() else "?")))
            column += 1
            if letter == "\n" or column == COLUMNS:
                row, column = row + 1, 0
            if row == ROWS:
                return letters, losses, edges
    return letters, losses[: row + bool(column)], edges


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
