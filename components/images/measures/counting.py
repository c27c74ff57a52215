"""Objects of each class counted in images: detections from a threshold on, which is chosen on other images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.images.measures.average_precision import Floats

STEPS = np.linspace(0.05, 0.95, 91)
"""Scores among which a threshold is chosen."""


@dataclass(frozen=True)
class Scored:
    """The detections in an image, and the objects there."""

    score: Floats  # (D,)
    label: NDArray[np.int64]  # (D,)
    objects: NDArray[np.int64]  # (C,), the true number of each class


@dataclass(frozen=True)
class Counts:
    """Numbers of objects by image and class, (N, C) each."""

    true: NDArray[np.int64]
    counted: NDArray[np.int64]


def thresholds(images: Sequence[Scored]) -> Floats:
    """Return for each class the score from which on counts differ least from the truth, in mean absolute error.

    Of several equally good scores in a row it is the middle one, and 0.5 for a class that no image has and that is
    never detected.
    """
    objects = np.array([each.objects for each in images])  # (N, C)
    chosen = np.full(objects.shape[1], 0.5)
    for label, true in enumerate(objects.T):
        scores = [np.sort(each.score[each.label == label]) for each in images]
        if not true.any() and not any(map(len, scores)):
            continue
        counted = np.array([len(each) - np.searchsorted(each, STEPS) for each in scores])  # (N, steps)
        error = np.abs(counted - true[:, None]).sum(0)
        best = np.flatnonzero(error == error.min())
        run = best[: np.argmax(np.diff(best, append=len(STEPS) + 1) > 1) + 1]  # the first ones without a gap
        chosen[label] = STEPS[run[len(run) // 2]]
    return chosen


def count(images: Sequence[Scored], least: Floats) -> Counts:
    """Count the detections of each class whose score is at least its threshold, (C,)."""
    counted = [np.bincount(each.label[each.score >= least[each.label]], minlength=len(least)) for each in images]
    return Counts(np.array([each.objects for each in images]), np.array(counted))


def metrics(counts: Counts, names: Sequence[str]) -> dict[str, float]:
    """Return the mean absolute error of the count in an image over the mean count, of all objects and by class."""
    error, mean = np.abs(counts.counted - counts.true).mean(0), counts.true.mean(0)
    found = {
        f"count_error/{name}": float(error[label] / mean[label]) for label, name in enumerate(names) if mean[label]
    }
    every = counts.true.sum(1).mean()
    overall = np.abs(counts.counted.sum(1) - counts.true.sum(1)).mean()
    return {"count_error": float(overall / every)} | found if every else found
