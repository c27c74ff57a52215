"""Which format the annotations of a raw folder have, and what they say."""

from pathlib import Path, PurePosixPath
from typing import Literal

from components.datasets.raw_files import listed
from components.errors import PedigreeError
from components.images.annotations import coco, files, voc, yolo
from components.images.annotations.boxes import Annotations
from components.images.annotations.files import Files
from components.images.annotations.voc import Origin

Format = Literal["auto", "coco", "voc", "yolo"]


def read(raw: Path, chosen: Format, origin: Origin, empty_ok: bool) -> Annotations:
    """Read the annotations of all images, without opening an image.

    Args:
        raw: The raw folder.
        chosen: The format; `auto` detects it from the names of files and folders.
        origin: See `voc.read`.
        empty_ok: See `yolo.read`.

    Raises:
        PedigreeError: there are annotations in no known format or in several, or those there are cannot be used.
    """
    found = files.below(raw)
    evidence = _evidence(found)
    if chosen == "auto":
        if not evidence:
            raise PedigreeError(
                f"{raw}: there are no annotated images: put there COCO's annotations/instances_train.json, Pascal "
                "VOC's Annotations/*.xml, or YOLO's images/, labels/ and data.yaml (docs/tasks/object_detection.md)"
            )
        if len(evidence) > 1:
            both = " and ".join(f"{name} ({listed(paths)})" for name, paths in evidence.items())
            raise PedigreeError(
                f"{raw} has annotations in several formats: {both}: set prepare.format to the one to read, or "
                "remove the others"
            )
        chosen = next(iter(evidence))
    elif chosen not in evidence:
        raise PedigreeError(f"{raw}: prepare.format is {chosen}, but there are no such files: set it to auto")
    if chosen == "coco":
        return coco.read(found)
    return voc.read(found, origin) if chosen == "voc" else yolo.read(found, empty_ok)


def _evidence(found: Files) -> dict[Format, list[str]]:
    """Return the formats that the files have by their names, each with such files."""
    labels = [path for path in found.of(".txt") if yolo.LABELS in PurePosixPath(path).parts[:-1]]
    each: dict[Format, list[str]] = {"coco": coco.candidates(found), "voc": found.of(".xml"), "yolo": labels}
    return {name: paths for name, paths in each.items() if paths}
