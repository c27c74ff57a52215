"""COCO's JSON files of instances (https://cocodataset.org/#format-data): one for all images, or one a split."""

import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from components.datasets.ingest import Unusable
from components.datasets.raw_files import listed
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


def read(files: Files) -> Annotations:
    """Read all JSON files. Classes are those of the training file, in the order of their ids, which may have gaps.

    Raises:
        PedigreeError: a file is not COCO's, two are of one split, or a class has another name in another file.
    """
    documents = _by_split(files)
    training = documents["train"][1]
    categories = _categories(files, *documents["train"])
    label_of = {each: label for label, each in enumerate(sorted(categories))}
    rejected: dict[str, str] = {}
    counts = Counter[str]()
    splits: dict[str, list[Picture]] = {}
    for split, (path, document) in documents.items():
        if document is not training:
            _compare(files, path, _categories(files, path, document), documents["train"][0], categories)
        splits[split] = _pictures(files, path, document, label_of, rejected, counts)
    _add_unlisted(files, splits, rejected)
    return Annotations(
        "coco",
        [categories[each] for each in sorted(categories)],
        splits,
        rejected,
        sorted(categories),
        counts=counts,
    )


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
    except (KeyError, TypeError, ValueError):
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


def _pictures(
    files: Files,
    path: str,
    document: Mapping[str, Any],
    label_of: Mapping[int, int],
    rejected: dict[str, str],
    counts: Counter[str],
) -> list[Picture]:
    annotations: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for each in document["annotations"]:
        if not isinstance(each, dict) or "image_id" not in each:
            raise PedigreeError(f"{files.raw / path}: an annotation has no image_id: correct it")
        annotations[each["image_id"]].append(each)
    pictures = []
    for image in document["images"]:
        try:
            identity, name = image["id"], str(image["file_name"])
        except (KeyError, TypeError):
            raise PedigreeError(f"{files.raw / path}: an image has no id or file_name: correct it") from None
        own = annotations.pop(identity, [])
        file = name
        try:
            file = files.named(name, path)
            boxes = [_box(each, label_of) for each in own]
            pictures.append(Picture(file, path, _size(image), boxes))
        except Unusable as reason:
            rejected[file] = f"{reason} ({path})" if file == name else f"{path}: {reason}"
    if annotations:
        counts["annotations of images that the file does not list, ignored"] += sum(map(len, annotations.values()))
    return pictures


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None


def _box(each: Mapping[str, Any], label_of: Mapping[int, int]) -> Box:
    """Return a box from an annotation, whose `bbox` has the left and top edge, the width and the height."""
    where = f"annotation {each.get('id')}"
    category = each.get("category_id")
    if not isinstance(category, int) or category not in label_of:
        raise Unusable(f"{where} has the category {category}, which the training file does not list")
    try:
        left, top, width, height = map(float, each["bbox"])
    except (KeyError, TypeError, ValueError):
        raise Unusable(f"{where} has no bbox of four numbers") from None
    return Box(left, top, left + width, top + height, label_of[category], bool(each.get("iscrowd")), where)


def _add_unlisted(files: Files, splits: Mapping[str, Sequence[Picture]], rejected: dict[str, str]) -> None:
    """Reject images that no file lists, in the folders of those that one does list: elsewhere may be masks."""
    used = {picture.file for pictures in splits.values() for picture in pictures}
    folders = {PurePosixPath(file).parent for file in used}
    for file in files.images:
        if file not in used and PurePosixPath(file).parent in folders:
            rejected.setdefault(file, "no annotation file lists it")
