"""YOLO's text files, one for each image, and data.yaml (https://docs.ultralytics.com/datasets/detect/)."""

from collections import Counter
from pathlib import Path, PurePosixPath

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.datasets.ingest import Unusable, contents
from components.errors import PedigreeError
from components.images.annotations.boxes import Annotations, Box, Picture
from components.images.annotations.files import Files, split_in

IMAGES, LABELS = "images", "labels"


def read(files: Files, empty_ok: bool) -> Annotations:
    """Read images/…/x.jpg with labels/…/x.txt, and the names of the classes from data.yaml.

    Args:
        files: The raw folder's files.
        empty_ok: Whether an image without a text file has no objects; otherwise it is rejected.

    Raises:
        PedigreeError: data.yaml is missing or has no names, or there is no image of train.
    """
    classes = _names(files)
    rejected: dict[str, str] = {}
    counts = Counter[str]()
    labels = {path for path in files.of(".txt") if LABELS in PurePosixPath(path).parts[:-1]}
    images = [path for path in files.images if IMAGES in PurePosixPath(path).parts[:-1]]
    divided = any(split_in(_folder(path)) for path in images)
    splits: dict[str, list[Picture]] = {}
    used = set()
    for file in images:
        path = _label_file(file)
        used.add(path)
        split = split_in(_folder(file)) if divided else "train"
        if split is None:
            rejected[file] = "it is in no folder of a split, though others are"
            continue
        if path not in labels and not empty_ok:
            rejected[file] = f"there is no {path}: write an empty file if nothing is on it, or set prepare.empty_ok"
            continue
        try:
            boxes = _boxes(files, path, len(classes), counts) if path in labels else []
        except Unusable as reason:
            rejected[file] = str(reason)
            continue
        counts["images without a text file, which count as empty"] += path not in labels
        splits.setdefault(split, []).append(Picture(file, path, None, boxes, relative=True))
    for path in sorted(labels - used):
        rejected[path] = "it has no image"
    if not splits.get("train"):
        raise PedigreeError(
            f"{files.raw}: there is no image of train in {IMAGES}/ with a text file in {LABELS}/: add some, or set "
            "prepare.empty_ok if images without a text file have no objects"
        )
    return Annotations("yolo", classes, dict(sorted(splits.items())), rejected, counts=+counts)


def data_file(files: Files) -> str | None:
    """Return data.yaml, or the only other YAML file at the top of the folder."""
    found = [path for path in files.of(".yaml", ".yml") if "/" not in path]
    named = [path for path in found if PurePosixPath(path).stem.casefold() == "data"]
    if len(named) == 1:
        return named[0]
    return found[0] if len(found) == 1 else None


def _names(files: Files) -> list[str]:
    path = data_file(files)
    if path is None:
        raise PedigreeError(
            f"{files.raw}: YOLO's classes have only numbers in {LABELS}/: add data.yaml with `names:` and a list"
        )
    file: Path = files.raw / path
    try:
        document = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise PedigreeError(f"{file} is not YAML: {' '.join(str(error).split())}: correct it") from None
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, dict) and {*names} == {*range(len(names))}:
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or len({str(name) for name in names}) < len(names):
        raise PedigreeError(f"{file} has no `names:` with a different name for each class: add it")
    return [str(name) for name in names]


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent / "x")  # the image's own name says nothing of its split


def _label_file(image: str) -> str:
    """Return the path of an image's text file: the last folder `images` is replaced by `labels`."""
    path = PurePosixPath(image)
    parts = list(path.parts)
    last = len(parts) - 1 - parts[::-1].index(IMAGES)
    parts[last] = LABELS
    return str(PurePosixPath(*parts).with_suffix(".txt"))


def _boxes(files: Files, path: str, classes: int, counts: Counter[str]) -> list[Box]:
    """Read rows of a class, the centre, width and height; or of a class and the corners of a polygon."""
    try:
        text = contents(files.raw, path, "a text file").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable(f"{path} is not UTF-8") from None
    boxes = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            first, *numbers = map(float, line.split())
        except ValueError:
            raise Unusable(f"{where} of {path} has something else than numbers") from None
        if not first.is_integer() or not 0 <= first < classes:
            raise Unusable(
                f"{where} of {path} has the class {first:g}, but data.yaml names {classes} classes, from 0"
            )
        if len(numbers) == 4:
            x, y, width, height = numbers
            sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif len(numbers) >= 6 and len(numbers) % 2 == 0:
            counts["polygons, of which the box was taken"] += 1
            sides = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
        else:
            raise Unusable(
                f"{where} of {path} has {1 + len(numbers)} numbers instead of 5, or 7 or more for a polygon"
            )
        boxes.append(Box(*sides, int(first), False, where))
    return boxes
