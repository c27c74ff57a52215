"""Columns that reveal the target: each column alone, as a classifier or a predictor of a quantity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.classification import ranking
from components.datasets.splits import Columns
from components.tables.columns import SPECIAL, Column
from components.tables.facts import CATEGORY, LABEL, NUMBER

MOST = 0.995
"""Area under the ROC curve, or absolute rank correlation with a quantity, beyond which a column reveals the
target."""
SAMPLED = 200_000
"""Most rows of a split that are looked at, evenly spaced."""
Floats = NDArray[np.float64]


def found(train: Columns, val: Columns, columns: Sequence[Column], classes: int) -> dict[str, float]:
    """Return the columns that alone tell the target, in training and in validation rows, and how well.

    With several classes, each is compared with all others, and the best separated one counts.

    Args:
        train: The training split.
        val: The validation split.
        columns: Those of both, in the order of the arrays.
        classes: Number of classes; 0 for a quantity.
    """
    splits = [_sample(split) for split in (train, val)]
    revealing = {}
    for array, own in (
        (NUMBER, [column for column in columns if column.is_number]),
        (CATEGORY, [column for column in columns if not column.is_number]),
    ):
        for place, column in enumerate(own):
            values = [(split[array][:, place], split[LABEL]) for split in splits]
            strength = min(_strength(values[0], each, column, classes) for each in values)
            if strength > MOST:
                revealing[column.name] = strength
    return revealing


def _sample(split: Columns) -> dict[str, NDArray[np.generic]]:
    count = min(len(split), SAMPLED)
    rows = np.arange(count) * len(split) // count
    return {name: tensor.numpy()[rows] for name, tensor in split.dense.items()}


Pair = tuple[NDArray[np.generic], NDArray[np.generic]]
"""A column and the target, each (N,)."""


def _strength(train: Pair, split: Pair, column: Column, classes: int) -> float:
    labels = range(1, classes) if classes == 2 else range(classes)
    if not classes:
        return abs(_correlation(_ranked(train, split, column, None), split[1].astype(np.float64)))
    areas = []
    for label in labels:
        values = _ranked(train, split, column, label)
        area = ranking.auc((split[1] == label).astype(np.float64), values, np.ones(len(values)))
        areas.append(max(area, 1 - area))
    known = [area for area in areas if not np.isnan(area)]
    return max(known, default=0.0)


def _ranked(train: Pair, split: Pair, column: Column, label: int | None) -> Floats:
    """Return numbers with the smallest for missing ones, or the mean target of each category in training."""
    if column.is_number:
        values = split[0].astype(np.float64)
        return np.nan_to_num(values, nan=np.nanmin(values, initial=0) - 1)
    targets = train[1].astype(np.float64) if label is None else (train[1] == label).astype(np.float64)
    size = max(column.cardinality, SPECIAL)
    counts = np.bincount(train[0], minlength=size)
    # A category that occurs once would tell its own row.
    means = (np.bincount(train[0], targets, size) + targets.mean()) / (counts + 1)
    found: Floats = means[split[0]]
    return found


def _correlation(one: Floats, other: Floats) -> float:
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)
