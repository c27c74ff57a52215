"""Pictures of drives: scenes from above, film strips, animations, and figures that compare drivers."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from components import figures
from components.tasks.driving.measures import Measures
from components.tasks.driving.road import HEADING, LENGTH, WIDTH, Floats, Road, X, Y

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEHIND, AHEAD, MARGIN = 25.0, 65.0, 3.0
"""Metres of a scene behind and before the ego car, and beside the lanes."""
PIXELS = 6
"""Of a metre."""
SMOOTH = 2
"""Scenes are drawn this many times as large, and then made smaller."""
ROAD, GROUND, LINE = (90, 90, 90), (225, 232, 220), (235, 235, 235)
EGO, OTHER, PLAN = (40, 190, 70), (80, 140, 225), (255, 190, 30)
NAMES = {"idm": "IDM"}
MOMENTS = (-3.0, -2.0, -1.0, 0.0)
"""Seconds of a film strip, from its worst moment, or from as soon after it as all have passed."""


class Film(NamedTuple):
    """A drive to be shown."""

    name: str
    cars: Floats
    """(T, C, 6), the ego car first."""
    worst: int
    """The frame of the collision, or of the least time to one."""
    caption: str


def scene(road: Road, cars: Floats, plan: Floats | None = None) -> Image.Image:
    """Draw cars (C, 6) from above, the ego car in green, and the points of its plan (T, 2)."""
    scale, left = PIXELS * SMOOTH, cars[0, X] - BEHIND
    sides = [y + side * lane.width / 2 for lane in road for _, y in lane.points for side in (-1, 1)]
    sides = sides or [cars[0, Y] - 8, cars[0, Y] + 8]
    top, bottom = min(sides) - MARGIN, max(sides) + MARGIN
    size = (round((BEHIND + AHEAD) * scale), round((bottom - top) * scale))
    image = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(image)

    def pixels(points: Floats) -> list[tuple[float, float]]:
        moved = (points - [left, top]) * scale
        return [(float(x), float(y)) for x, y in moved]

    for lane in road:
        points = np.array(lane.points)
        half = np.array([0.0, lane.width / 2])
        draw.polygon(pixels(np.concatenate([points - half, (points + half)[::-1]])), fill=ROAD)
    for lane in road:
        points, half = np.array(lane.points), np.array([0.0, lane.width / 2])
        for side in (-1, 1):
            draw.line(pixels(points + side * half), fill=LINE, width=SMOOTH)
    for number in reversed(range(len(cars))):
        if not np.isnan(cars[number, X]):
            draw.polygon(pixels(_outline(cars[number])), fill=OTHER if number else EGO, outline=(30, 30, 30))
    if plan is not None:
        for x, y in pixels(plan):
            draw.ellipse((x - 2 * SMOOTH, y - 2 * SMOOTH, x + 2 * SMOOTH, y + 2 * SMOOTH), fill=PLAN)
    return image.resize((size[0] // SMOOTH, size[1] // SMOOTH), Image.Resampling.BOX)


def _outline(car: Floats) -> Floats:
    corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * car[[LENGTH, WIDTH]] / 2
    cosine, sine = np.cos(car[HEADING]), np.sin(car[HEADING])
    outline: Floats = corners @ np.array([[cosine, sine], [-sine, cosine]]) + car[[X, Y]]
    return outline


def png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def animate(road: Road, film: Film, hertz: int, file: Path) -> None:
    """Write a drive as an animated GIF."""
    first, *others = (scene(road, cars).quantize(16) for cars in film.cars)
    first.save(file, save_all=True, append_images=others, duration=round(1000 / hertz), loop=0)


def film_strips(road: Road, films: Sequence[Film], hertz: int) -> "Figure":
    """Draw each drive in a row, around its worst moment."""
    figure = figures.blank(13, 0.6 + 1.1 * len(films))
    figure.suptitle("The worst drives, with the ego car in green")
    grid = figure.subplots(len(films), len(MOMENTS), squeeze=False)
    for row, film in zip(grid, films, strict=True):
        last = max(film.worst, round(-MOMENTS[0] * hertz))
        for axes, moment in zip(row, MOMENTS, strict=True):
            frame = min(max(last + round(moment * hertz), 0), len(film.cars) - 1)
            axes.imshow(np.asarray(scene(road, film.cars[frame])))
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(f"{frame / hertz:.1f} s", fontsize=7)
        row[0].set_title(figures.drawable(film.caption, 110), fontsize=8, loc="left", parse_math=False)
    return figure


def drivers(tables: Mapping[str, Floats]) -> "Figure":
    """Draw the measures of each driver's drives, (N, 6) by name."""
    figure = figures.blank(11, 3.2)
    figure.suptitle("The network and other drivers of the same scenes")
    names, fields = [NAMES.get(name, name) for name in tables], Measures._fields
    panels = figure.subplots(1, 4)
    rates = [table[:, :2].max(1).mean() for table in tables.values()]
    panels[0].bar_label(panels[0].barh(names, rates, color="lightsteelblue"), fmt="{:.0%}", padding=2, fontsize=8)
    panels[0].set_title("Drives with a collision or off the road", fontsize=9)
    panels[0].set_xlim(0, 1.2)
    titles = {"progress": "Metres driven", "jerk": "Mean jerk, m/s³", "min_ttc": "Least time to collision, s"}
    for axes, (field, title) in zip(panels[1:], titles.items(), strict=True):
        values = [table[:, fields.index(field)] for table in tables.values()]
        axes.boxplot(values, orientation="horizontal", tick_labels=names, widths=0.6, flierprops={"markersize": 3})
        axes.set_title(title, fontsize=9)
    for axes in panels:
        axes.invert_yaxis()
    return figure
