"""The regions of a COCO file, polygons and run lengths -> the class of each pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.datasets.ingest import Unusable
from components.images.masks.mask_files import Labels

__all__ = ["Region", "Unusable", "painted"]

OVERSHOOT = 0.02
"""Share of the image's side by which a polygon may be outside; it is then clipped at the border."""
LONGEST = 40
"""Most bits of a compressed run length; no image has so many pixels."""
CLIPPED = "polygons clipped at the border of the image"
CROWDS = "crowds, whose pixels have no class"
OVERLAPS = "images with objects that overlap, the smaller one in front"


@dataclass(frozen=True)
class Region:
    """What an annotation says of its pixels."""

    where: str
    """Its place in the file, such as "annotation 7"."""
    label: int
    """The label of its class; see `masks.Labels`."""
    crowd: bool
    shape: Any
    """A list of polygons, each x, y, x, y, … in pixels, or run lengths as `counts` and `size`."""


def painted(regions: Sequence[Region], height: int, width: int) -> tuple[Labels, list[str]]:
    """Return the class of each pixel, and what of the regions is to be counted.

    Pixels of no region are of the background, whose label is 1. Those of a crowd alone have no class. Where several
    objects overlap, the smallest is in front.

    Raises:
        Unusable: a region is no polygons and no run lengths, or is outside the image.
    """
    cases: list[str] = []
    found = np.ones((height, width), np.uint8)
    objects: list[tuple[int, int]] = []
    for position, region in enumerate(regions):
        inside, more = _inside(region, height, width)
        cases += more
        if region.crowd:
            cases.append(CROWDS)
            found[inside] = 0
        else:
            objects.append((-int(inside.sum()), position))
    covered = np.zeros((height, width), bool)
    overlap = False
    for _, position in sorted(objects):
        inside, _ = _inside(regions[position], height, width)  # again, as memory would not hold those of a crowd
        overlap = overlap or bool((covered & inside).any())
        covered |= inside
        found[inside] = regions[position].label
    return found, [*cases, *([OVERLAPS] if overlap else [])]


def _inside(region: Region, height: int, width: int) -> tuple[NDArray[np.bool_], list[str]]:
    """Return the pixels of a region, bool (H, W)."""
    shape = region.shape
    if isinstance(shape, dict):
        return _of_runs(region.where, shape, height, width), []
    if not isinstance(shape, list) or not shape:
        raise Unusable(f"{region.where} has no polygons or run lengths")
    polygons = [_polygon(region.where, each) for each in shape]
    cut = [_cut(region.where, each, height, width) for each in polygons]
    clipped = any((one != two).any() for one, two in zip(polygons, cut, strict=True))
    return _of_polygons(cut, height, width), [CLIPPED] if clipped else []


def _polygon(where: str, numbers: Any) -> NDArray[np.float64]:
    """Return the points of a polygon, (N, 2)."""
    try:
        points = np.array(numbers, np.float64)
    except (ValueError, TypeError, OverflowError):
        points = np.array([np.nan])
    if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        raise Unusable(f"{where} has a polygon that is no list of at least three points x, y")
    return points.reshape(-1, 2)


def _cut(where: str, points: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    sides = np.array([width, height])
    beyond = np.maximum(-points, points - sides).max(0) / sides
    if beyond.max() > OVERSHOOT:
        raise Unusable(f"{where} has a polygon outside the image of {width} x {height} pixels")
    return np.clip(points, 0, sides)


def _of_polygons(polygons: Sequence[NDArray[np.float64]], height: int, width: int) -> NDArray[np.bool_]:
    """Return the union of polygons, rasterised as COCO's own tools do."""
    from faster_coco_eval.core import mask  # type: ignore[import-untyped]  # takes a moment

    runs = mask.frPyObjects([points.ravel().tolist() for points in polygons], height, width)
    return np.asarray(mask.decode(mask.merge(runs)), bool)


def _of_runs(where: str, shape: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels of run lengths, which go down the columns and begin with those outside."""
    if shape.get("size") != [height, width]:
        raise Unusable(f"{where} has run lengths of the size {shape.get('size')}, not [{height}, {width}]")
    counts = shape.get("counts")
    runs: Any = _decompressed(counts) if isinstance(counts, str) else counts
    valid = isinstance(runs, list) and all(isinstance(each, int) and each >= 0 for each in runs)
    if not valid or sum(runs) != height * width:
        raise Unusable(f"{where} has run lengths that do not fill {height} x {width} pixels")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(width, height).T


def _decompressed(text: str) -> list[int] | None:
    """Return the run lengths of a text, each in digits of base 32, from the third on as a difference to the one two
    before (`rleFrString` in COCO's maskApi.c); None if the text ends within a number.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for letter in text:
        digit = ord(letter) - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32 and shift <= LONGEST:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return None if shift else runs
