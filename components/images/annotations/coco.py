"""COCO's JSON files of instances (https://cocodataset.org/#format-data): one for all images, or one a split."""

import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

from components.datasets.ingest import Unusable
from components.datasets.raw_files import listed
from components.display import printable_name
from components.errors import PedigreeError
from components.images.annotations.boxes import Annotations, Box, Picture
from components.images.annotations.files import Files, split_in

log = logging.getLogger("pedigree.prepare")

_NAME = re.compile(r"coco|instances|annotation|^(train|val|valid|validation|dev|test)\d*$", re.IGNORECASE)
_OTHER = re.compile(r"createml|captions|keypoints|panoptic|stuff|image_info|^labels_", re.IGNORECASE)


def candidates(files: Files) -> list[str]:
    """Return the JSON files that are COCO's by their names; instances_* alone if there are such."""
    found = [path for path in files.of(".json") if _seems_coco(PurePosixPath(path))]
    instances = [path for path in found if PurePosixPath(path).name.startswith("instances")]
    return instances or found


def _seems_coco(path: PurePosixPath) -> bool:
    named = _NAME.search(path.stem) or path.parent.name.casefold() == "annotations"
    return bool(named) and not _OTHER.search(path.stem)


T = TypeVar("T")
Annotation = Mapping[str, Any]
"""An object of an image, as the file has it."""


@dataclass(frozen=True)
class Image(Generic[T]):
    """An image that a file lists, with its objects."""

    file: str
    """Path below the raw folder."""
    source: str
    """The JSON file, likewise."""
    size: tuple[int, int] | None
    """Width and height that the file gives, if it does."""
    objects: Sequence[T]


@dataclass(frozen=True)
class Found(Generic[T]):
    """What the JSON files of a raw folder say."""

    classes: Mapping[int, str]
    """By id, in the order of the ids; a label is a position among them."""
    splits: Mapping[str, Sequence[Image[T]]]
    rejected: dict[str, str]
    """Images that cannot be used, and why."""
    counts: Counter[str]
    """What was found and handled, by name."""


def read(files: Files) -> Annotations:
    """Read the boxes of all JSON files; raises as `objects` does."""
    found = objects(files, _box)
    pictures = {
        split: [Picture(each.file, each.source, each.size, each.objects) for each in images]
        for split, images in found.splits.items()
    }
    return Annotations(
        "coco", [*found.classes.values()], pictures, found.rejected, [*found.classes], counts=found.counts
    )


def objects(files: Files, of: Callable[[Annotation, int, str], T]) -> Found[T]:
    """Read all JSON files. Classes are those of the training file, in the order of their ids, which may have gaps.

    Args:
        files: The raw folder's files.
        of: Returns what is needed of an annotation, given its label and its place in the file; raises Unusable.

    Raises:
        PedigreeError: a file is not COCO's, two are of one split, an image is listed twice, or a class has another
            name in another file.
    """
    documents = _by_split(files)
    training = documents["train"][1]
    categories = _categories(files, *documents["train"])
    label_of = {each: label for label, each in enumerate(sorted(categories))}
    rejected: dict[str, str] = {}
    counts = Counter[str]()
    splits: dict[str, list[Image[T]]] = {}
    sources: dict[str, Image[T]] = {}
    for split, (path, document) in documents.items():
        if document is not training:
            _compare(files, path, _categories(files, path, document), documents["train"][0], categories)
        convert = partial(_object, of, label_of)
        splits[split] = _images(files, path, document, convert, rejected, counts)
        for each in splits[split]:
            if (other := sources.setdefault(each.file, each)) is not each:
                raise PedigreeError(
                    f"{files.raw / path} lists the image {each.file}, which is already listed in {other.source}: "
                    "keep it in one place"
                )
    _add_unlisted(files, splits, rejected)
    return Found({each: categories[each] for each in sorted(categories)}, splits, rejected, counts)


def _by_split(files: Files) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return each split's file and its content."""
    paths = candidates(files)
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in paths:
        split = (split_in(path) or "train") if len(paths) == 1 else split_in(path)
        if split is None:
            raise PedigreeError(
                f"{files.raw / path} does not say of which split it is, and there are {len(paths)} such files: put "
                "train, val or test into its name, or remove it"
            )
        if split in found:
            raise PedigreeError(
                f"{files.raw / found[split][0]} and {files.raw / path} are both of {split}: keep one of them"
            )
        found[split] = (path, _document(files, path))
    if "train" not in found:
        raise PedigreeError(f"{files.raw}: there is no file of train beside {listed(paths)}: add one")
    return found


def _document(files: Files, path: str) -> dict[str, Any]:
    file = files.raw / path
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PedigreeError(f"{file} is not JSON: {error}: restore it from its source") from None
    lists = ("images", "annotations", "categories")
    missing = [name for name in lists if not isinstance(document, dict) or not isinstance(document.get(name), list)]
    if missing:
        raise PedigreeError(
            f"{file} has no list of {' and '.join(missing)}, which a COCO file of instances has: use such a file, "
            "or set prepare.format if the annotations are in another format"
        )
    if not document["images"]:
        raise PedigreeError(f"{file} lists no images: use a file of instances with images")
    return dict(document)


def _categories(files: Files, path: str, document: Mapping[str, Any]) -> dict[int, str]:
    """Return the classes' names by id."""
    try:
        found = {int(each["id"]): str(each["name"]) for each in document["categories"]}
    except (KeyError, TypeError, ValueError, OverflowError):
        raise PedigreeError(f"{files.raw / path}: a category has no id or no name: add it") from None
    if len(found) < len(document["categories"]) or len(set(found.values())) < len(found) or not found:
        raise PedigreeError(f"{files.raw / path}: categories need ids and names of their own: correct them")
    return found


def _compare(
    files: Files, path: str, categories: Mapping[int, str], other: str, trained: Mapping[int, str]
) -> None:
    for number, name in categories.items():
        if number in trained and trained[number] != name:
            raise PedigreeError(
                f"{files.raw / path}: category {number} is '{name}', and '{trained[number]}' in "
                f"{files.raw / other}: give equal classes equal ids"
            )


def _images(
    files: Files,
    path: str,
    document: Mapping[str, Any],
    convert: Callable[[Annotation], T],
    rejected: dict[str, str],
    counts: Counter[str],
) -> list[Image[T]]:
    annotations: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for each in document["annotations"]:
        if not isinstance(each, dict) or not _is_id(each.get("image_id")):
            raise PedigreeError(f"{files.raw / path}: an annotation has no image_id: correct it")
        annotations[each["image_id"]].append(each)
    images, known = [], set[Any]()
    for image in document["images"]:
        try:
            identity, name = image["id"], str(image["file_name"])
        except (KeyError, TypeError):
            identity, name = None, ""
        if not _is_id(identity):
            raise PedigreeError(f"{files.raw / path}: an image has no id or file_name: correct it")
        if identity in known or name in known:
            raise PedigreeError(
                f"{files.raw / path} lists the image {printable_name(name)} (id {identity}) twice: remove one"
            )
        known |= {identity, name}
        own = annotations.pop(identity, [])
        file = printable_name(name)  # as JSON can name what no file is called
        try:
            file = files.named(name, path)
            images.append(Image(file, path, _size(image), [convert(each) for each in own]))
        except Unusable as reason:
            rejected[file] = f"{reason} ({path})" if file == printable_name(name) else f"{path}: {reason}"
    if annotations:
        counts["annotations of images that the file does not list, ignored"] += sum(map(len, annotations.values()))
    return images


def _is_id(value: Any) -> bool:
    return isinstance(value, int | float | str)


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = (each if type(each) is int else 0 for each in (image.get("width"), image.get("height")))
    return (width, height) if width > 0 and height > 0 else None


def _object(of: Callable[[Annotation, int, str], T], label_of: Mapping[int, int], each: Annotation) -> T:
    where = f"annotation {each.get('id')}"
    category = each.get("category_id")
    if not isinstance(category, int) or category not in label_of:
        raise Unusable(f"{where} has the category {category}, which the training file does not list")
    return of(each, label_of[category], where)


def _box(each: Annotation, label: int, where: str) -> Box:
    """Return a box from an annotation, whose `bbox` has the left and top edge, the width and the height."""
    try:
        left, top, width, height = map(float, each["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Unusable(f"{where} has no bbox of four numbers") from None
    return Box(left, top, left + width, top + height, label, bool(each.get("iscrowd")), where)


def _add_unlisted(files: Files, splits: Mapping[str, Sequence[Image[T]]], rejected: dict[str, str]) -> None:
    """Reject images that no file lists, in the folders of those that one does list: elsewhere may be masks."""
    used = {image.file for images in splits.values() for image in images}
    folders = {PurePosixPath(file).parent for file in used}
    for file in files.images:
        if file not in used and PurePosixPath(file).parent in folders:
            rejected.setdefault(file, "no annotation file lists it")
