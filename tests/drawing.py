"""Evaluations whose figures are not looked at, as drawing them takes most of the time."""

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from components import figures


def draw_only(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Let figures be made as always, and only those of these names be drawn and written."""
    save = figures.save

    def some(figure: Figure, path: Path, note: str = "") -> None:
        if path.stem in names:
            save(figure, path, note)

    patch.setattr(figures, "save", some)


def keep_titles(patch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Keep each figure's own title and those of its axes, by its file's name, instead of drawing it."""
    titles: dict[str, list[str]] = {}

    def keep(canvas: FigureCanvasAgg, path: Path, **_: object) -> None:
        titles[path.stem] = [canvas.figure.get_suptitle(), *(axes.get_title() for axes in canvas.figure.axes)]

    patch.setattr(FigureCanvasAgg, "print_png", keep)
    return titles
