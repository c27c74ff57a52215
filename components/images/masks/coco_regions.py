"""COCO's JSON files with polygons or run lengths: the regions of each image's objects."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from components.errors import PedigreeError
from components.images.annotations import coco
from components.images.annotations.files import Files
from components.images.masks.regions import Region

BACKGROUND = "background"


@dataclass(frozen=True)
class Found:
    """What the JSON files of a raw folder say."""

    classes: Sequence[str]
    """The background, and the categories of training by ascending id."""
    splits: Mapping[str, Sequence[coco.Image[Region]]]
    rejected: Mapping[str, str]
    """Images that cannot be used, and why."""
    cases: Mapping[str, int]
    """How often what was found, by description."""


def files_of(files: Files) -> list[str]:
    """Return the JSON files that have regions, and those that cannot be read, as they might; not those of boxes."""
    return [path for path in coco.candidates(files) if _may_have_regions(files, path)]


def _may_have_regions(files: Files, path: str) -> bool:
    with suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
        document = json.loads((files.raw / path).read_bytes())
        return not document["images"] or any(each.get("segmentation") for each in document["annotations"])
    return True


def read(files: Files) -> Found:
    """Read all JSON files.

    Raises:
        PedigreeError: as in `coco.objects`, or there is no JSON file, or a category is called background.
    """
    if not coco.candidates(files):
        raise PedigreeError(f"{files.raw}: there is no JSON file of COCO's: add one, such as instances_train.json")
    found = coco.objects(files, _region)
    ids, names = [*found.classes], [*found.classes.values()]
    if BACKGROUND in names:
        raise PedigreeError(f"{files.raw}: a category is called {BACKGROUND}, as are pixels without one: rename it")
    images = [image for images in found.splits.values() for image in images]
    cases = found.counts.copy()
    cases["category ids with gaps"] += ids[-1] - ids[0] + 1 != len(ids)
    cases["images without objects"] += sum(not image.objects for image in images)
    return Found([BACKGROUND, *names], found.splits, found.rejected, +cases)


def _region(each: Mapping[str, Any], label: int, where: str) -> Region:
    return Region(where, label + 2, bool(each.get("iscrowd")), each.get("segmentation"))
