"""Composed scenes written in three formats of annotations, as their own tools lay them out."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Boxes = Sequence[tuple[int, int, int, int, str]]
"""Left, top, right, bottom and class."""


def scenes_of(coco: Path) -> Iterator[tuple[str, str, Path, Boxes]]:
    """Yield split, name, file and boxes of each scene that `write_scenes` wrote."""
    for split in ("train", "val", "test"):
        document = json.loads((coco / split / "_annotations.coco.json").read_text())
        names = {each["id"]: each["name"] for each in document["categories"]}
        for image in document["images"]:
            own = [each for each in document["annotations"] if each["image_id"] == image["id"]]
            boxes = [
                (x, y, x + w, y + h, names[each["category_id"]]) for each in own for x, y, w, h in [each["bbox"]]
            ]
            file = coco / split / image["file_name"]
            yield split, file.stem, file, boxes


def xml(boxes: Boxes, file: str, size: tuple[float, float] | None = (128, 128), first: int = 1) -> str:
    """Return a VOC file with inclusive pixels that are counted from `first`."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{left + first}</xmin>"
        f"<ymin>{top + first}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for left, top, right, bottom, name in boxes
    )
    shape = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation><filename>{file}</filename>{shape}<segmented>0</segmented>{objects}</annotation>"


def to_voc(coco: Path, folder: Path) -> None:
    """Write JPEGImages/, Annotations/ and ImageSets/Main/."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {}
    for split, name, file, boxes in scenes_of(coco):
        stem = f"{split}_{name}"
        shutil.copyfile(file, folder / "JPEGImages" / f"{stem}.jpg")
        (folder / "Annotations" / f"{stem}.xml").write_text(xml(boxes, f"{stem}.jpg"))
        lists.setdefault(split, []).append(stem)
    for split, stems in lists.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))


def to_yolo(coco: Path, folder: Path) -> None:
    """Write images/, labels/ and data.yaml."""
    for split, name, file, boxes in scenes_of(coco):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / "images" / split / f"{name}.jpg")
        rows = [
            f"{label} {(left + right) / 256:.6f} {(top + bottom) / 256:.6f} {(right - left) / 128:.6f} "
            f"{(bottom - top) / 128:.6f}\n"
            for left, top, right, bottom, label in boxes
        ]
        (folder / "labels" / split / f"{name}.txt").write_text("".join(rows))
    (folder / "data.yaml").write_text(
        "train: images/train\nval: images/val\ntest: images/test\nnc: 10\nnames: ["
        + ", ".join(f"'{n}'" for n in range(10))
        + "]\n"
    )


def write_coco(
    folder: Path,
    boxes_of: Mapping[str, Sequence[Sequence[float]]],
    name: str = "instances_train.json",
    **changes: Any,
) -> Path:
    """Write a COCO file of images of 40 x 30 pixels, each with boxes of category 3: x, y, width and height."""
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cell"}]}
    for number, (file, boxes) in enumerate(boxes_of.items(), 1):
        document["images"].append({"id": number, "file_name": file, "width": 40, "height": 30})
        for box in boxes:
            count = len(document["annotations"]) + 1
            document["annotations"].append({"id": count, "image_id": number, "category_id": 3, "bbox": list(box)})
    path = folder / "annotations" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document | changes))
    return path
