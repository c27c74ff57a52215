"""COCO's average precision of detected boxes, from a table whose rows can be weighted.

The definition is that of pycocotools (https://github.com/cocodataset/cocoapi, cocoeval.py). Each detection, by
descending score, takes the object of its class that it overlaps most and that no other has, if their IoU reaches
a threshold. Precision is made monotonic and averaged over 101 recalls. A detection that matches only a crowd region
is ignored.
"""

import numpy as np
from numpy.typing import NDArray

from components.contracts import Columns

Floats = NDArray[np.float64]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU from which a detection is right; mAP@[.5:.95] is the mean over them."""
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""Most detections of an image that count."""


def ious(found: Floats, true: Floats, crowd: NDArray[np.bool_]) -> Floats:
    """Return the overlap of detections (D, 4) with true boxes (G, 4) as (D, G).

    It is the intersection over the union, or for a crowd region over the detection's own area.
    """
    width = np.minimum(found[:, None, 2], true[None, :, 2]) - np.maximum(found[:, None, 0], true[None, :, 0])
    height = np.minimum(found[:, None, 3], true[None, :, 3]) - np.maximum(found[:, None, 1], true[None, :, 1])
    both = width.clip(0) * height.clip(0)
    own, other = ((each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (found, true))
    union = own[:, None] + np.where(crowd[None], 0, other[None] - both)
    overlap: Floats = both / np.maximum(union, 1e-12)
    return overlap


def matched(overlap: Floats, crowd: NDArray[np.bool_], thresholds: Floats) -> NDArray[np.int64]:
    """Return the true box that each detection of an image and class matches at each threshold, (D, T), or -1.

    Args:
        overlap: From `ious`, (D, G), with the detections by descending score.
        crowd: Which of the true boxes are crowd regions, (G,); these can match several detections.
        thresholds: (T,).
    """
    result = np.full((len(overlap), len(thresholds)), -1)
    if not overlap.size:
        return result
    least = np.minimum(thresholds, 1 - 1e-10)
    order = np.argsort(crowd, kind="stable")  # crowd regions last
    for column, threshold in enumerate(least):
        free = np.ones(len(crowd), bool)
        for row in np.flatnonzero(overlap.max(1) >= threshold):
            best, place = threshold, -1
            for index in order:
                if place >= 0 and not crowd[place] and crowd[index]:
                    break  # a match with an object is better than any with a crowd region
                if (free[index] or crowd[index]) and overlap[row, index] >= best:
                    best, place = overlap[row, index], index
            if place >= 0:
                result[row, column] = place
                free[place] = False
    return result


def table(
    found: tuple[Floats, Floats, NDArray[np.int64]], true: Floats, thresholds: Floats = THRESHOLDS
) -> dict[str, Floats]:
    """Compare the detections of one image with its true boxes; return rows for `mean`.

    There is a row for each detection, by label and descending score, so that the last digits of the scores of two
    classes do not change the order of rows; then one for each object.

    Args:
        found: Boxes (D, 4), scores (D,) and labels (D,).
        true: (G, 6): left, top, right, bottom, label, 1 for a crowd region.
        thresholds: (T,).

    Returns:
        `score` (R,), 0 for an object; `true` (R,), 1 for an object; `hit` (R, T), 1 for a detection that is right;
        `wrong` (R, T), 1 for one that is wrong; `label` (R,).
    """
    order = np.argsort(-found[1], kind="stable")[:MOST]
    order = order[np.argsort(found[2][order], kind="stable")]
    boxes, score, label = found[0][order], found[1][order], found[2][order]
    hit, wrong = (np.zeros((len(score), len(thresholds))) for _ in range(2))
    for name in np.unique(label):
        rows, own = np.flatnonzero(label == name), true[true[:, 4] == name]
        crowd = own[:, 5] > 0
        match = matched(ious(boxes[rows], own[:, :4], crowd), crowd, thresholds)
        on_crowd = (match >= 0) & np.append(crowd, False)[match]
        hit[rows] = (match >= 0) & ~on_crowd
        wrong[rows] = match < 0
    objects = true[true[:, 5] == 0]
    nothing = np.zeros((len(objects), len(thresholds)))
    columns: dict[str, Floats] = {
        "score": np.append(score, np.zeros(len(objects))),
        "true": np.append(np.zeros(len(score)), np.ones(len(objects))),
        "label": np.append(label, objects[:, 4]).astype(np.float64),
        "hit": np.vstack([hit, nothing]),
        "wrong": np.vstack([wrong, nothing]),
    }
    return columns


def mean(columns: Columns, weights: Floats) -> float:
    """Return the mean of `of_classes` over thresholds and the classes that have objects; NaN if none has."""
    found = of_classes(columns, weights)
    return float(np.mean([values.mean() for values in found.values()])) if found else float("nan")


def mean_at_half(columns: Columns, weights: Floats) -> float:
    """Return `mean` at the first of `THRESHOLDS`, an IoU of .5."""
    return mean({**columns, **{name: columns[name][:, :1] for name in ("hit", "wrong")}}, weights)


def of_classes(columns: Columns, weights: Floats) -> dict[int, Floats]:
    """Return the average precision at each threshold, (T,), of each label that has objects.

    Args:
        columns: From `table`, for all images.
        weights: Weight of each row.
    """
    return {
        int(label): precision.mean(0)
        for label in np.unique(columns["label"][(columns["true"] > 0) & (weights > 0)])
        if (precision := curve(columns, weights, label)) is not None
    }


def curve(columns: Columns, weights: Floats, label: float) -> Floats | None:
    """Return precision at each of `RECALLS` and thresholds, (101, T), of a label; None if it has no object."""
    own = columns["label"] == label
    objects = float(weights[own] @ columns["true"][own])
    if not objects:
        return None
    detected = own & (columns["true"] == 0) & (weights > 0)
    score = columns["score"][detected]
    order = np.argsort(-score, kind="stable")
    weight = weights[detected][order][:, None]
    right = np.cumsum(weight * columns["hit"][detected][order], 0)  # (D, T)
    wrong = np.cumsum(weight * columns["wrong"][detected][order], 0)
    recall = right / objects
    precision = right / np.maximum(right + wrong, 1e-12)
    precision = np.maximum.accumulate(precision[::-1], 0)[::-1]
    result = np.zeros((len(RECALLS), right.shape[1]))
    for column in range(right.shape[1]):
        places = np.searchsorted(recall[:, column], RECALLS, side="left")
        reached = places < len(precision)
        result[reached, column] = precision[places[reached], column]
    return result
