"""Boxes as annotation files have them, and as arrays in pixels of their image."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.datasets.ingest import Unusable

OVERSHOOT = 0.02
"""Largest share of an image's side by which a box may reach beyond the image: it is clipped there."""
COLUMNS = ("left", "top", "right", "bottom", "label", "crowd")
"""Columns of an array of boxes. Pixels are counted from the image's left and top edge; `crowd` is 0 or 1."""


class Box(NamedTuple):
    """One box of an annotation file."""

    left: float
    top: float
    right: float
    bottom: float
    label: int
    """Index of its class."""
    crowd: bool
    """Whether it is a region with objects that are not annotated one by one (COCO's `iscrowd`)."""
    where: str
    """Its place in the file, such as "line 3"."""


@dataclass(frozen=True)
class Picture:
    """An image with its boxes."""

    file: str
    """Path below the raw folder."""
    source: str
    """The annotation file, likewise."""
    size: tuple[int, int] | None
    """Width and height that the annotations give; None if they give none."""
    boxes: Sequence[Box]
    relative: bool = False
    """Whether coordinates are shares of the image's width and height."""


@dataclass(frozen=True)
class Annotations:
    """All images of a raw folder with their boxes. No image has been opened."""

    format: str
    classes: Sequence[str]
    """A label is an index into this list."""
    splits: dict[str, list[Picture]]
    """The data set's own splits, `train` among them; only `train` if it has none."""
    rejected: dict[str, str]
    """Images and annotation files that cannot be used, as paths below the raw folder; and why."""
    ids: Sequence[int] = ()
    """The classes' ids in a COCO file."""
    origin: int = 0
    """The number of the first pixel in the file: 1 in VOC's own files."""
    counts: Counter[str] = field(default_factory=Counter)
    """What was found and handled, by name."""


def in_pixels(picture: Picture, width: int, height: int) -> tuple[NDArray[np.float64], Counter[str]]:
    """Return an image's usable boxes, with columns as in `COLUMNS`, and what was changed or dropped, by name.

    Coordinates are rounded to 0.01 pixel, so that files of several formats give the same array. A box that reaches
    at most `OVERSHOOT` beyond the image is clipped there. Boxes of at most one pixel in width or height, among them
    those whose sides are swapped, and repeated boxes are dropped.

    Args:
        picture: The image's annotations.
        width: The image's width in pixels.
        height: Its height.

    Raises:
        Unusable: a box reaches further beyond the image, or has a coordinate that is no finite number.
    """
    rows: dict[tuple[float, ...], None] = {}  # in their order, each once
    counts = Counter[str]()
    scale = (width, height, width, height) if picture.relative else (1, 1, 1, 1)
    for box in picture.boxes:
        sides = [side * factor for side, factor in zip(box[:4], scale, strict=True)]
        name = f"{box.where} of {picture.source}"
        if not all(map(math.isfinite, sides)):
            raise Unusable(f"{name} has a coordinate that is no finite number")
        beyond = _beyond(sides, width, height)
        if beyond > OVERSHOOT:
            edges = ", ".join(f"{side:g}" for side in sides)
            raise Unusable(
                f"{name} reaches {beyond:.0%} of the image's side beyond it: left, top, right and bottom are "
                f"{edges}, and the image has {width} x {height} pixels"
            )
        limits = (width, height, width, height)
        cut = tuple(round(min(max(side, 0), limit), 2) for side, limit in zip(sides, limits, strict=True))
        if cut[2] - cut[0] <= 1 or cut[3] - cut[1] <= 1:
            counts["boxes of at most one pixel in width or height, dropped"] += 1
            continue
        row = (*cut, float(box.label), float(box.crowd))
        if row in rows:
            counts["repeated boxes, dropped"] += 1
            continue
        if beyond > 0:
            counts["boxes clipped at the image's edge"] += 1
        if box.crowd:
            counts["crowd regions, ignored in training and evaluation"] += 1
        rows[row] = None
    return np.array([*rows], np.float64).reshape(-1, len(COLUMNS)), counts


def _beyond(sides: Sequence[float], width: int, height: int) -> float:
    """Return by which share of the image's side a box reaches beyond it."""
    left, top, right, bottom = sides
    across = max(-min(left, right), max(left, right) - width, 0) / width
    down = max(-min(top, bottom), max(top, bottom) - height, 0) / height
    beyond = max(across, down)
    return beyond if beyond * max(width, height) >= 0.005 else 0.0  # less disappears when it is rounded
