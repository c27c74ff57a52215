"""Figures of classification tasks and learning curves, drawn by matplotlib without pyplot's global state.

Names are drawn literally, never as mathematics; characters that the font lacks appear as boxes.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from textwrap import wrap
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

READABLE = 30
"""Maximum number of classes that a figure names individually."""
DPI = 120
LETTERS = 13
"""Letters of a sentence at `NOTE_SIZE` that fit into an inch."""
NOTE_SIZE = 10
"""Size of a note's letters, in points."""

Colour = tuple[float, float, float]
"""Red, green and blue, 0 to 1."""
_NO_LEGEND: Mapping[str, Colour] = MappingProxyType({})


@dataclass(frozen=True)
class Tile:
    """One picture of a gallery."""

    image: NDArray[Any]
    """(H, W) grey or (H, W, 3) RGB; uint8, or floats, whose smallest and largest values span the grey scale."""
    caption: str
    note: str
    """Small text below the picture; if it is too long, its beginning is dropped."""


def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str], shares: bool = False) -> "Figure":
    """Draw how often each actual class was predicted as each class.

    Args:
        counts: (C, C), rows are the actual classes, columns the predicted ones.
        classes: The C names; if there are more than READABLE, only their numbers are shown.
        shares: Write percentages of the actual class, as for pixels, whose numbers are too long for a cell.
    """
    from matplotlib.colors import PowerNorm

    side = float(np.clip(1.5 + 0.5 * len(classes), 4.5, 11))
    figure = blank(side + 1.2, side)
    axes = figure.add_subplot(title="Confusion matrix", xlabel="Predicted", ylabel="Actual")
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # (C, C)
    # A square-root scale makes rare confusions visible beside the diagonal.
    picture = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    bar = figure.colorbar(picture, ax=axes, label="Share of the actual class", shrink=0.8)
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.2, 0.5, 1], labels=["0", "1%", "5%", "10%", "20%", "50%", "100%"])
    if len(classes) <= READABLE:
        _name_cells(axes, counts, share, classes, shares)
    else:
        axes.set(xlabel="Predicted (number of the class)", ylabel="Actual (number of the class)")
    return figure


def _name_cells(
    axes: "Axes", counts: NDArray[np.int64], share: NDArray[np.float64], classes: Sequence[str], shares: bool
) -> None:
    names = [drawable(name, 20) for name in classes]
    upright = len(names) * max(map(len, names)) <= 40
    turn: dict[str, Any] = {} if upright else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), labels=names, parse_math=False, **turn)
    axes.set_yticks(range(len(names)), labels=names, parse_math=False)
    size = 11 if len(names) <= 12 else 7
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.35 else "black" if count else "silver"
        text = f"{share[row, column]:.1%}" if shares else str(count)
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def reliability(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 15) -> "Figure":
    """Draw accuracy against confidence, and how often each confidence occurs.

    The diagram of Guo et al., "On Calibration of Modern Neural Networks" (2017), figure 1.

    Args:
        confidence: (N,) probability of the predicted class, 0 to 1.
        correct: (N,) whether the prediction was right.
        bins: Number of equal bins between 0 and 1.
    """
    counts, edges = np.histogram(confidence, bins, (0, 1))
    used, width = counts > 0, 1 / bins
    # As floats, because NumPy "adds" boolean weights by a logical or.
    accuracy = np.histogram(confidence, bins, (0, 1), weights=correct.astype(np.float64))[0][used] / counts[used]
    mean = np.histogram(confidence, bins, (0, 1), weights=confidence)[0][used] / counts[used]

    figure = blank(5.5, 6.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.bar(
        edges[:-1][used], accuracy, width, align="edge", color="lightsteelblue", edgecolor="white", label="Accuracy"
    )
    upper.bar(
        edges[:-1][used], mean - accuracy, width, accuracy, align="edge", color="none", edgecolor="tab:red",
        hatch="////", linewidth=0.8, label="Gap to the mean confidence",
    )  # fmt: skip
    upper.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="Perfectly calibrated")
    upper.set(title="Reliability", ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1))
    lower.bar(edges[:-1], counts / max(len(confidence), 1), width, align="edge", color="grey", edgecolor="white")
    lower.set(xlabel="Confidence (probability of the predicted class)", ylabel="Share of samples")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def per_class(scores: Mapping[str, NDArray[np.float64]], classes: Sequence[str]) -> "Figure":
    """Draw the scores of each class, lowest on top; if there are many classes, only the READABLE lowest.

    Args:
        scores: The (C,) values of each score by name, 0 to 1; the last score gives the order.
        classes: The C names.
    """
    *_, leading = scores.values()
    order = np.argsort(leading, kind="stable")[:READABLE]
    figure = blank(7, 1.6 + 0.28 * len(order))
    axes = figure.add_subplot(xlabel="Score", ylabel="Class")
    rows = np.arange(len(order))
    spread = np.stack([values[order] for values in scores.values()])  # (S, K)
    axes.hlines(rows, spread.min(0), spread.max(0), color="lightgrey", linewidth=3, zorder=1)
    for (name, values), marker in zip(scores.items(), "<>osD", strict=False):
        axes.scatter(values[order], rows, marker=marker, label=name, zorder=2, clip_on=False)
    axes.set_yticks(rows, labels=[drawable(classes[index], 30) for index in order], parse_math=False)
    axes.set(xlim=(min(np.floor(spread.min() * 10) / 10 - 0.02, 0.9), 1), ylim=(len(order) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.4)
    shown = "" if len(order) == len(classes) else f": the lowest {len(order)} of {len(classes)}"
    figure.suptitle(f"Scores by class{shown}")
    figure.legend(loc="outside lower center", ncols=len(scores))
    return figure


@dataclass(frozen=True)
class Curve:
    """A curve of one class."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    """Both (T,), 0 to 1."""
    mark: tuple[float, float] | None = None
    """A point to mark, such as that of the threshold in use."""


def roc(curves: Sequence[Curve]) -> "Figure":
    """Draw sensitivity (y) against the false positive rate (x), with the diagonal of a random order."""
    figure = blank(6, 6)
    axes = figure.add_subplot(title="ROC", xlabel="False positive rate (1 - specificity)", ylabel="Sensitivity")
    axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    _draw_curves(figure, axes, curves)
    return figure


def precision_recall(curves: Sequence[Curve]) -> "Figure":
    """Draw precision (y) against recall (x); names should end with the average precision."""
    figure = blank(6, 6)
    axes = figure.add_subplot(title="Precision and recall", xlabel="Recall (sensitivity)", ylabel="Precision")
    _draw_curves(figure, axes, curves)
    return figure


def _draw_curves(figure: "Figure", axes: "Axes", curves: Sequence[Curve]) -> None:
    """Draw curves in a unit square; if there are over READABLE, without names."""
    for curve in curves:
        (line,) = axes.plot(curve.x, curve.y, linewidth=1.5, label=drawable(curve.name, 40))
        if curve.mark:
            axes.plot(*curve.mark, "o", color=line.get_color(), clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.grid(alpha=0.3)
    if curves and len(curves) <= READABLE:
        legend = figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)


def gallery(
    tiles: Sequence[Tile], title: str, empty: str, columns: int = 5, legend: Mapping[str, Colour] = _NO_LEGEND
) -> "Figure":
    """Draw a grid of pictures with captions and notes, or the text `empty` if there are none.

    Args:
        tiles: The pictures.
        title: The title.
        empty: The text if there are none.
        columns: Pictures in a row.
        legend: What the colours in the pictures mean.
    """
    if not tiles:
        figure = blank(6, 1.2)
        figure.text(0.5, 0.3, empty, ha="center", va="center", fontsize=12)  # below a note
        return figure
    captions = [_wrapped(tile.caption) for tile in tiles]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    row_height = 2.5 + 0.16 * max(caption.count("\n") + 1 for caption in captions)
    figure = blank(max(2.2 * columns, 5), row_height * rows + 0.6)
    figure.suptitle(title, fontsize=11)
    for index, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1, xticks=[], yticks=[])
        bounds = (0, 255) if tile.image.dtype == np.uint8 else (None, None)
        axes.imshow(tile.image, cmap="gray", vmin=bounds[0], vmax=bounds[1])
        axes.set_title(caption, fontsize=9, parse_math=False)
        axes.set_xlabel(drawable(tile.note[::-1], 34)[::-1], fontsize=6, color="dimgrey", parse_math=False)
    if legend:
        _explain(figure, legend)
    return figure


def grid(rows: Sequence[Sequence[NDArray[Any]]], names: Sequence[str], title: str) -> "Figure":
    """Draw rows of pictures of one size, uint8 (H, W) or (H, W, 3), each row with its name."""
    picture = mosaic(rows)
    height, width = picture.shape[:2]
    scale = 7 / max(width, height)
    figure = blank(width * scale + 1.5, height * scale + 0.6)
    axes = figure.add_subplot(xticks=[])
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    centres = (np.arange(len(rows)) + 0.5) * height / len(rows)
    axes.set_yticks(centres, labels=[drawable(name, 20) for name in names], parse_math=False)
    figure.suptitle(title, fontsize=11)
    return figure


GAP = 2
"""Pixels between the pictures of a mosaic."""


def mosaic(rows: Sequence[Sequence[NDArray[Any]]]) -> NDArray[np.uint8]:
    """Join rows of pictures of one size, uint8 (H, W) or (H, W, 3), into one picture; rows may differ in length."""
    height, width, *colours = np.shape(next(row[0] for row in rows if len(row)))
    columns = max(map(len, rows))
    shape = (len(rows) * (height + GAP), columns * (width + GAP), *colours)
    joined = np.full(shape, 128, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = row * (height + GAP) + GAP // 2, column * (width + GAP) + GAP // 2
            joined[top : top + height, left : left + width] = picture
    return joined


def write_mosaic(rows: Sequence[Sequence[NDArray[Any]]], file: Path, scale: int = 2) -> None:
    """Write `mosaic` as a PNG, each pixel as a square of `scale` pixels, without loading matplotlib."""
    from PIL import Image

    Image.fromarray(mosaic(rows).repeat(scale, 0).repeat(scale, 1)).save(file)


def _explain(figure: "Figure", legend: Mapping[str, Colour]) -> None:
    """Draw what colours mean below a figure."""
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=drawable(name, 20)) for name, colour in legend.items()]
    drawn = figure.legend(handles=patches[:READABLE], loc="outside lower center", ncols=6, fontsize=8)
    for text in drawn.get_texts():
        text.set_parse_math(False)


def _wrapped(caption: str) -> str:
    """Wrap each line of a caption into at most two lines that fit above a tile."""
    lines = (wrap(drawable(line, 64), 32, max_lines=2, placeholder="…") for line in caption.split("\n"))
    return "\n".join(chain(*lines))


MARKED = 40
"""Number of points from which a curve has no markers."""


def learning_curves(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Draw losses and other validation metrics over the epochs.

    Args:
        history: One row per validation, with `epoch`, `train/loss`, `val/loss` and any other `val/…`; missing
            values are gaps in the curves.
    """
    from matplotlib.ticker import MaxNLocator

    losses = ["train/loss", "val/loss"]
    others = sorted({name for row in history for name in row if name.startswith("val/")} - {*losses})
    panels = [("Loss", "Loss", losses), *([("Validation metrics", "Value", others)] if others else [])]
    figure = blank(5 * len(panels), 4)
    epochs, marker = [row["epoch"] for row in history], "o" if len(history) < MARKED else None
    for index, (title, label, names) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1, title=title, xlabel="Epoch", ylabel=label)
        for name in names:
            axes.plot(epochs, [row.get(name, np.nan) for row in history], marker=marker, markersize=3, label=name)
        axes.set_xlim(min(0.5, *epochs), max(epochs) + (0.5 if len(epochs) < 2 else 0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def save(figure: "Figure", path: Path, note: str = "") -> None:
    """Write a PNG whose bytes depend only on the figure, not on the date; a note is drawn above the title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if note:
        lines = wrap(note, int(LETTERS * figure.get_figwidth()))
        headline = "\n".join(filter(None, [*lines, figure.get_suptitle()]))
        figure.suptitle(headline, fontsize=NOTE_SIZE, parse_math=False)
    figure.set_dpi(DPI)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Not figure.savefig, which draws everything once more beforehand.
        FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})  # type: ignore[no-untyped-call]


def blank(width: float, height: float) -> "Figure":
    """Return an empty figure with a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def drawable(text: str, longest: int) -> str:
    """Return at most `longest` characters of `text`, with unprintable ones such as line ends replaced by `?`."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"
