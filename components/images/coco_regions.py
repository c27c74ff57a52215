"""COCO's JSON files with a polygon or run lengths for each object, https://cocodataset.org/#format-data.

Neither `info` nor `licenses` is needed, and ids may begin anywhere and have gaps.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from components.datasets.raw_files import listed, split_of
from components.display import brief
from components.errors import PedigreeError
from components.images.regions import Region

KEYS = ("images", "annotations", "categories")
BACKGROUND = "background"
EMPTY = "images without objects"
GAPS = "category ids with gaps"
UNKNOWN = "annotations of images that the file does not list"


@dataclass(frozen=True)
class Image:
    """An image and the regions of its objects."""

    file: str
    """Path below the raw folder."""
    regions: tuple[Region, ...]
    size: tuple[int, int] | None
    """Width and height."""


@dataclass(frozen=True)
class Found:
    """What the JSON files of a raw folder say."""

    splits: Mapping[str, Sequence[Image]]
    classes: Sequence[str]
    """The background, and the categories of training by ascending id."""
    strays: Mapping[str, str]
    """Files that are used for nothing, by path, and why."""
    cases: Mapping[str, int]
    """How often what was found, by description."""


def documents(raw: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the content of the JSON files that hold regions; those of captions, boxes alone or others do not.

    Raises:
        PedigreeError: a file is not JSON.
    """
    contents = {name: _content(raw / name) for name in names if name.endswith(".json")}
    found = {name: content for name, content in contents.items() if _has_regions(content)}
    instances = {name: content for name, content in found.items() if _file(name).startswith("instances")}
    return instances or found  # beside them, COCO has files of keypoints with the same regions


def _file(name: str) -> str:
    return PurePosixPath(name).name


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PedigreeError(f"{path} is not JSON ({error}): repair or remove it") from None


def _has_regions(content: Any) -> bool:
    annotations = content.get("annotations") if isinstance(content, dict) else None
    return isinstance(annotations, list) and any(
        isinstance(each, dict) and each.get("segmentation") and "category_id" in each for each in annotations
    )


def read(raw: Path, names: Sequence[str], contents: Mapping[str, Any]) -> Found:
    """Read the images and regions of a raw folder.

    Args:
        raw: The raw folder.
        names: All its files.
        contents: Those of its JSON files, from `documents`.

    Raises:
        PedigreeError: a file lacks a list, two files are of one split, or an entry is malformed.
    """
    if not contents:
        raise PedigreeError(f"{raw}: no JSON file has annotations with a `segmentation`: add one, as COCO's are")
    by_split: dict[str, str] = {}
    for name in contents:
        if other := by_split.get(split := _split(name)):
            raise PedigreeError(f"{raw}: {other} and {name} are both of {split}: remove one, or rename it")
        by_split[split] = name
    documents = {split: _document(raw / name, contents[name]) for split, name in by_split.items()}
    first = "train" if "train" in documents else min(documents)
    categories = _categories(raw / by_split[first], documents[first])
    cases: Counter[str] = Counter()
    ids = sorted(categories)
    cases[GAPS] = int(ids[-1] - ids[0] + 1 != len(ids))
    by_name: dict[str, list[str]] = {}
    for name in names:
        by_name.setdefault(_file(name), []).append(name)
    strays: dict[str, str] = {}
    splits = {}
    for split, document in documents.items():
        reader = _Reader(raw / by_split[split], split, by_name, {each: n + 2 for n, each in enumerate(ids)})
        splits[split] = reader.images(document, strays, cases)
    used = {image.file for images in splits.values() for image in images} | set(strays)
    strays |= {name: "in no JSON file" for name in names if _is_image(name) and name not in used}
    classes = [BACKGROUND, *(categories[each] for each in ids)]
    return Found(splits, classes, strays, {name: count for name, count in cases.items() if count})


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


def _split(name: str) -> str:
    """Return the split that a file's folder or name tells, as in `train/….json` and `instances_val2017.json`."""
    path = PurePosixPath(name)
    words = [*path.parent.parts, *re.split(r"[^a-z]+", path.stem.casefold())]
    return next((split for word in reversed(words) if (split := split_of(word))), "train")


def _document(path: Path, content: Mapping[str, Any]) -> Mapping[str, list[Any]]:
    for key in KEYS:
        if not isinstance(content.get(key), list):
            raise PedigreeError(
                f"{path} has no list of {key}: it is no annotation file of COCO's: repair or remove it"
            )
    return content


def _categories(path: Path, document: Mapping[str, list[Any]]) -> dict[int, str]:
    """Return the names of the categories by id."""
    found: dict[int, str] = {}
    for each in document["categories"]:
        number, name = (each.get("id"), each.get("name")) if isinstance(each, dict) else (None, None)
        if not isinstance(number, int) or not isinstance(name, str):
            raise PedigreeError(f"{path}: the category {brief(each)} has no id and name: add them")
        if number in found or name in found.values() or name == BACKGROUND:
            raise PedigreeError(f"{path}: the category {number} ({name}) is there twice: rename or remove one")
        found[number] = name
    if not found:
        raise PedigreeError(f"{path} has no categories: add them")
    return found


@dataclass(frozen=True)
class _Reader:
    """Reads the images of a document."""

    path: Path
    split: str
    by_name: Mapping[str, Sequence[str]]
    """Files of the raw folder by the last part of their paths."""
    labels: Mapping[int, int]
    """Category id to label."""

    def images(self, document: Mapping[str, list[Any]], strays: dict[str, str], cases: Counter[str]) -> list[Image]:
        """Return the images; add to the strays and to what is counted."""
        regions: dict[int, list[Any]] = {}
        for number, image in enumerate(document["images"]):
            if not isinstance(image, dict) or not isinstance(image.get("id"), int) or image["id"] in regions:
                raise PedigreeError(f"{self.path}: images[{number}] has no id, or that of another: repair it")
            regions[image["id"]] = []
        for number, each in enumerate(document["annotations"]):
            if not isinstance(each, dict):
                raise PedigreeError(f"{self.path}: annotations[{number}] is no object: repair it")
            cases[UNKNOWN] += each.get("image_id") not in regions
            regions.get(each.get("image_id", -1), []).append(each)
        found, used = [], set[str]()
        for image in document["images"]:
            own = regions[image["id"]]
            file = self._path(image)
            if file is None:
                strays[f"{self.path.name}: {image.get('file_name')}"] = (
                    "an image of the JSON file that is not there"
                )
            elif file in used:
                raise PedigreeError(f"{self.path} lists the image {file} twice: join the two")
            elif unknown := sorted({each.get("category_id") for each in own} - {*self.labels}):
                strays[file] = f"categories that training does not have: {listed([str(each) for each in unknown])}"
            else:
                used.add(file)
                cases[EMPTY] += not own
                found.append(Image(file, tuple(map(self._region, own)), self._size(image)))
        return sorted(found, key=lambda each: each.file)

    def _path(self, image: Mapping[str, Any]) -> str | None:
        """Return the file of an image, which is in no folder of another split; rather in one of its own."""
        wanted = PurePosixPath(str(image.get("file_name", "")))
        found = [name for name in self.by_name.get(wanted.name, ()) if f"/{name}".endswith(f"/{wanted.as_posix()}")]
        found = found or list(self.by_name.get(wanted.name, ()))
        splits = {name: {_split_in(part) for part in PurePosixPath(name).parent.parts} - {None} for name in found}
        own = [name for name in found if splits[name] <= {self.split}]
        return max(own, key=lambda name: len(splits[name]), default=None)

    def _region(self, annotation: Mapping[str, Any]) -> Region:
        label = self.labels[annotation["category_id"]]
        return Region(
            str(annotation.get("id")), label, bool(annotation.get("iscrowd")), annotation.get("segmentation")
        )

    def _size(self, image: Mapping[str, Any]) -> tuple[int, int] | None:
        width, height = image.get("width"), image.get("height")
        return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _split_in(folder: str) -> str | None:
    """Return the split that a folder's name tells, such as train2017."""
    return split_of(re.sub(r"[^a-zA-Z]+$", "", folder))
