"""COCO's metrics by faster-coco-eval, which gives the numbers of pycocotools in less time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.images.measures.average_precision import MOST, Floats

SIZES = ("small", "medium", "large")
"""Objects of up to 32 x 32 pixels, up to 96 x 96, and larger ones, by the area of their box."""
Image = tuple[Floats, Floats, NDArray[np.int64], Floats]
"""Detections (boxes, scores, labels) and true boxes, as in `average_precision.table`."""


def metrics(images: Sequence[Image], names: Sequence[str]) -> dict[str, float]:
    """Return mAP@[.5:.95] as `map`, mAP@.5 as `map50`, mAP@.75 as `map75`, and by size and class.

    `map/<class>`, `map50/<class>` and `map_small` and the like are left out where the images have no such object.
    If nothing was detected, all are 0.

    Args:
        images: All images.
        names: Names of the classes.
    """
    from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]

    document, detections = _document(images, len(names))
    if not detections:
        return _nothing(images, names)
    truth = COCO(document)
    evaluation = COCOeval_faster(truth, truth.loadRes(detections), "bbox")
    evaluation.params.maxDets = [1, 10, MOST]
    evaluation.evaluate()
    evaluation.accumulate()
    precision: Floats = evaluation.eval["precision"][..., -1]  # (T, R, K, area ranges); -1 without an object
    found = {"map": precision[..., 0], "map50": precision[0, ..., 0], "map75": precision[5, ..., 0]}
    found |= {f"map_{name}": precision[..., area] for area, name in enumerate(SIZES, 1)}
    for label, name in enumerate(names):
        found |= {f"map/{name}": precision[:, :, label, 0], f"map50/{name}": precision[0, :, label, 0]}
    return {name: float(values[values > -1].mean()) for name, values in found.items() if (values > -1).any()}


def _document(images: Sequence[Image], classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return true boxes and detections as COCO's files have them."""
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for number, (boxes, score, label, true) in enumerate(images, 1):
        for sides, value, own in zip(boxes.tolist(), score.tolist(), label.tolist(), strict=True):
            detections.append({"image_id": number, "category_id": own + 1, "bbox": _bbox(sides), "score": value})
        for *sides, own, crowd in true.tolist():
            bbox = _bbox(sides)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(own) + 1,
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": int(crowd),
                }
            )
    document = {
        "info": {},
        "images": [{"id": number} for number in range(1, len(images) + 1)],
        "categories": [{"id": number, "name": str(number)} for number in range(1, classes + 1)],
        "annotations": annotations,
    }
    return document, detections


def _bbox(sides: Sequence[float]) -> list[float]:
    left, top, right, bottom = sides
    return [left, top, right - left, bottom - top]


def _nothing(images: Sequence[Image], names: Sequence[str]) -> dict[str, float]:
    """Return 0 for all metrics of objects that there are."""
    true = np.vstack([each[3] for each in images])
    labels = np.unique(true[true[:, 5] == 0, 4].astype(int))
    found = dict.fromkeys(("map", "map50", "map75"), 0.0)
    return found | {f"{metric}/{names[label]}": 0.0 for label in labels for metric in ("map", "map50")}
