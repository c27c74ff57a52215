"""Pascal VOC's XML files, one for each image (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from components.datasets.ingest import Unusable, contents
from components.datasets.raw_files import listed, split_of
from components.errors import PedigreeError
from components.images.annotations.boxes import Annotations, Box, Picture
from components.images.annotations.files import Files, split_in

Origin = Literal[0, 1, "auto"]


@dataclass(frozen=True)
class _Described:
    """The content of an XML file."""

    picture: Picture
    names: Sequence[str]
    """The class of each box."""
    split: str | None


class _WithoutDoctype(TreeBuilder):
    """Rejects a document type, with which entities are declared that expand to gigabytes or read other files."""

    def doctype(self, name: str, public: str, system: str) -> None:
        raise Unusable("it declares a document type, which annotations do not need: remove <!DOCTYPE …>")


def read(files: Files, origin: Origin) -> Annotations:
    """Read all XML files. Classes are the names in the training split, sorted.

    Pixels are counted from 1 in VOC's own files, but many programs write 0 for the first: `auto` decides.

    Raises:
        PedigreeError: there is nothing to train on, or `auto` cannot decide.
    """
    rejected: dict[str, str] = {}
    counts = Counter[str]()
    by_image: dict[str, _Described] = {}
    lists = _lists(files)
    for path in files.of(".xml"):
        try:
            found = _read(files, path, lists, counts)
        except Unusable as reason:
            rejected[path] = str(reason)
            continue
        if (first := by_image.setdefault(found.picture.file, found)) is not found:
            rejected[path] = (
                f"it describes {found.picture.file}, as does {first.picture.source}: remove one of them"
            )
    described = [*by_image.values()]
    first_pixel = _origin(files, [each.picture for each in described]) if origin == "auto" else origin
    _reject_without_file(files, described, lists, rejected)
    own = {each.split for each in described} - {None}
    groups: dict[str, list[_Described]] = {}
    for each in described:
        if own and each.split is None:
            rejected[each.picture.file] = "it is in no split: ImageSets/Main and folders name others only"
        else:
            groups.setdefault(each.split or "train", []).append(each)
    if not groups.get("train"):
        raise PedigreeError(f"{files.raw}: no XML file describes an image of train that is there: add some")
    classes = sorted({name for each in groups["train"] for name in each.names} - {""})
    label_of = {name: label for label, name in enumerate(classes)}
    splits = {split: _labelled(each, label_of, first_pixel, rejected) for split, each in sorted(groups.items())}
    return Annotations("voc", classes, splits, rejected, origin=first_pixel, counts=counts)


def _read(files: Files, path: str, lists: Mapping[str, str], counts: Counter[str]) -> _Described:
    parser = XMLParser(target=_WithoutDoctype())  # noqa: S314 (it declares no entities)
    try:
        parser.feed(contents(files.raw, path, "an annotation"))
        root: Element = parser.close()
    except Unusable:
        raise
    except ParseError as error:
        raise Unusable(f"not XML: {error}") from None
    except (LookupError, ValueError) as error:  # expat knows few encodings
        raise Unusable(f"its encoding cannot be read ({error}): save it in UTF-8") from None
    if root.tag != "annotation":
        raise Unusable(f"its outermost element is <{root.tag}> instead of <annotation>")
    stem = PurePosixPath(path).stem
    file = files.with_stem(stem, path)
    named = (root.findtext("filename") or "").replace("\\", "/").rpartition("/")[2]
    if named and named != PurePosixPath(file).name:
        counts["files whose <filename> is another, matched by their own name"] += 1
    objects = root.findall("object")
    boxes = [_box(each, f"object {number}") for number, each in enumerate(objects, 1)]
    picture = Picture(file, path, _size(root), boxes)
    split = lists.get(stem) if lists else split_in(PurePosixPath(path).parent.as_posix() + "/x")
    return _Described(picture, [(each.findtext("name") or "").strip() for each in objects], split)


def _size(root: Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(root.findtext(f"size/{name}") or 0)) for name in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _box(each: Element, where: str) -> Box:
    """Return a box with coordinates as in the file; some programs write fractions."""
    try:
        left, top, right, bottom = (
            float(each.findtext(f"bndbox/{name}") or "") for name in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        raise Unusable(f"{where} has no <bndbox> of four numbers") from None
    return Box(left, top, right, bottom, 0, False, where)


def _lists(files: Files) -> dict[str, str]:
    """Return the split of each name in ImageSets/Main; trainval counts only without a list of train."""
    paths = {
        PurePosixPath(path).stem: path
        for path in files.of(".txt")
        if PurePosixPath(path).parts[-3:-1] == ("ImageSets", "Main")
    }
    if "train" not in paths and "trainval" in paths:
        paths["train"] = paths["trainval"]
    found: dict[str, str] = {}
    for stem, path in sorted(paths.items()):
        if split := split_of(stem):
            for name in _words((files.raw / path).read_text(encoding="utf-8-sig", errors="replace").splitlines()):
                if (other := found.setdefault(name, split)) != split:
                    raise PedigreeError(
                        f"{files.raw / path} lists {name}, which is in the list of {other}, too: keep it in one"
                    )
    return found


def _words(lines: Iterable[str]) -> list[str]:
    """Return the first word of each line: lists of a class have a second one."""
    return [words[0] for line in lines if (words := line.split())]


def _reject_without_file(
    files: Files, described: Sequence[_Described], lists: Mapping[str, str], rejected: dict[str, str]
) -> None:
    """Reject images without an XML file, and names in lists that have neither."""
    used = {each.picture.file for each in described}
    folders = {PurePosixPath(file).parent for file in used}
    stems = {PurePosixPath(path).stem for path in (*files.of(".xml"), *files.images)}
    with_file = {PurePosixPath(path).stem for path in files.of(".xml")}
    for file in files.images:
        path = PurePosixPath(file)
        if file not in used and path.parent in folders and path.stem not in with_file:
            rejected[file] = "it has no XML file: write one, without an <object> if nothing is on it"
    for name in lists:
        if name not in stems:
            rejected[name] = f"the list of {lists[name]} in ImageSets/Main names it, but there is no such image"


def _origin(files: Files, pictures: Sequence[Picture]) -> int:
    """Return whether pixels are counted from 0 or from 1 in a data set, from its boxes at the images' edges."""
    low, touches = float("inf"), False
    for picture in pictures:
        for box in picture.boxes:
            if not all(map(math.isfinite, box[:4])):
                continue  # it rejects its image
            low = min(low, box.left, box.top)
            if picture.size:
                touches |= box.right == picture.size[0] or box.bottom == picture.size[1]
    if low <= 0:
        return 0
    if low == 1 and touches:
        return 1
    if low == float("inf"):
        return 0
    raise PedigreeError(
        f"{files.raw}: the boxes do not tell whether the XML files count pixels from 1, as Pascal VOC does, or "
        "from 0: set prepare.box_origin to 1 or 0"
    )


def _labelled(
    described: Sequence[_Described], label_of: Mapping[str, int], origin: int, rejected: dict[str, str]
) -> list[Picture]:
    """Return pictures whose boxes have labels and count from 0; the right and bottom edge are then exclusive."""
    pictures = []
    for each in described:
        if unknown := [name for name in each.names if name not in label_of]:
            names = listed([f"'{name}'" for name in dict.fromkeys(unknown)])
            rejected[each.picture.file] = f"{each.picture.source}: the training split has no class {names}"
            continue
        boxes = [
            box._replace(left=box.left - origin, top=box.top - origin, label=label_of[name])
            for box, name in zip(each.picture.boxes, each.names, strict=True)
        ]
        pictures.append(replace(each.picture, boxes=boxes))
    return pictures
