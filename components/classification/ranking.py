"""How well probabilities rank: ROC AUC, average precision, sensitivity at a specificity, and a threshold.

All are functions of weighted rows, so that intervals and the gate can compute them anew without some of the rows. A
row is one sample and one class: whether the sample is `positive`, 1 or 0, the `probability` that it was given, and
whether the model `flagged` it. A problem of two classes has the rows of its positive class alone; with more
classes, and where a sample can have several labels, every sample has one row for each class, and the number is the
mean over classes.

Source of the formulas: Fawcett 2006, An introduction to ROC analysis, Pattern Recognition Letters 27; for average
precision, scikit-learn's `average_precision_score`, which does not interpolate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from components.contracts import Columns, Score
from components.scores import of_class

Floats = NDArray[np.float64]
POSITIVE, PROBABILITY, FLAGGED, CLASS = "positive", "probability", "flagged", "class"
"""Columns of outcomes: 1 or 0, a probability, 1 or 0, and the index of the class that the row is about."""
SPECIFICITY = 0.95
"""The specificity at which sensitivity is given."""


def curve(positive: Floats, probability: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the weights of the true and of the false positives at each distinct threshold, from the highest down.

    Args:
        positive: 1 or 0, (R,).
        probability: (R,); rows of equal probability are one point of the curve.
        weights: (R,).

    Returns:
        Two arrays (T + 1,), both from 0, where nothing is flagged, to all.
    """
    order = np.argsort(-probability, kind="stable")
    own = weights[order]
    true = np.cumsum(own * positive[order])
    false = np.cumsum(own * (1 - positive[order]))
    last = np.flatnonzero(np.append(np.diff(probability[order]) != 0, len(order) > 0))
    return np.append(0.0, true[last]), np.append(0.0, false[last])


def auc(positive: Floats, probability: Floats, weights: Floats) -> float:
    """Return the area under the ROC curve; NaN without positives or without negatives.

    It is the probability that a positive has a higher probability than a negative, ties counting half, and equals
    scikit-learn's `roc_auc_score` with `sample_weight`.
    """
    true, false = curve(positive, probability, weights)
    if not true[-1] or not false[-1]:
        return math.nan
    area = float((np.diff(false) * (true[1:] + true[:-1])).sum() / 2)
    return area / float(true[-1] * false[-1])


def average_precision(positive: Floats, probability: Floats, weights: Floats) -> float:
    """Return the mean precision over recall; NaN without positives.

    It equals scikit-learn's `average_precision_score` with `sample_weight`.
    """
    true, false = curve(positive, probability, weights)
    if not true[-1]:
        return math.nan
    gained = np.diff(true)
    flagged = (true + false)[1:]
    precision = np.divide(true[1:], flagged, out=np.zeros_like(flagged), where=flagged > 0)
    return float((gained * precision).sum() / true[-1])


def sensitivity_at(
    positive: Floats, probability: Floats, weights: Floats, specificity: float = SPECIFICITY
) -> float:
    """Return the highest sensitivity of the thresholds with at least this specificity; NaN as in `auc`."""
    true, false = curve(positive, probability, weights)
    if not true[-1] or not false[-1]:
        return math.nan
    # A sum of weights is exact to some digits only.
    allowed = false <= (1 - specificity) * false[-1] * (1 + 1e-12)
    return float(true[allowed].max() / true[-1])


def threshold(positive: Floats, probability: Floats) -> float:
    """Return the probability from which to flag, so that sensitivity plus specificity is largest.

    This is Youden's index (Youden 1950, Cancer 3). It weighs both classes equally, whatever their shares. The
    threshold is in the middle between the probabilities of two rows, so that last digits do not decide; among
    several that are equally good, it is the one nearest to 0.5. Without positives or negatives, it is 0.5.

    Args:
        positive: 1 or 0 of each row of the validation split, (R,).
        probability: (R,).
    """
    true, false = curve(positive, probability, np.ones(len(positive)))
    if not true[-1] or not false[-1]:
        return 0.5
    index = true / true[-1] - false / false[-1]
    levels = np.unique(probability)[::-1]
    ends = np.concatenate([[1.0], levels, [0.0]])
    middles = (ends[:-1] + ends[1:]) / 2  # (T + 1,), one below each of the first T + 1 ends
    best = np.flatnonzero(index >= index.max() - 1e-12)
    return float(middles[best[np.argmin(np.abs(middles[best] - 0.5))]])


Of = Callable[[Floats, Floats, Floats], float]


def _mean(of: Of, columns: Columns, weights: Floats) -> float:
    """Return the mean of a function over the classes for which it is defined; NaN if it is for none."""
    classes = np.unique(columns[CLASS])
    found = [_of_class(of, index, columns, weights) for index in classes]
    known = [value for value in found if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _of_class(of: Of, index: float, columns: Columns, weights: Floats) -> float:
    rows = columns[CLASS] == index
    return of(columns[POSITIVE][rows], columns[PROBABILITY][rows], weights[rows])


def _share(kind: float, right: float, columns: Columns, weights: Floats) -> float:
    """Return the mean over classes of the share of rows with `positive` == kind that have `flagged` == right."""
    shares = []
    for index in np.unique(columns[CLASS]):
        own = weights * ((columns[CLASS] == index) & (columns[POSITIVE] == kind))
        if total := own.sum():
            shares.append(float(own @ (columns[FLAGGED] == right) / total))
    return math.fsum(shares) / len(shares) if shares else math.nan


def _counted(kind: float, columns: Columns) -> NDArray[np.bool_]:
    own: NDArray[np.bool_] = columns[POSITIVE] == kind
    return own


AUC = Score("auc", "more", partial(_mean, auc), share=True)
AVERAGE_PRECISION = Score("average_precision", "more", partial(_mean, average_precision), share=True)
SENSITIVITY_AT = Score("sensitivity_at_95_specificity", "more", partial(_mean, sensitivity_at), share=True)
SENSITIVITY = Score("sensitivity", "more", partial(_share, 1, 1), share=True, counted=partial(_counted, 1))
SPECIFICITY_SCORE = Score("specificity", "more", partial(_share, 0, 0), share=True, counted=partial(_counted, 0))
SCORES = (AUC, AVERAGE_PRECISION, SENSITIVITY_AT, SENSITIVITY, SPECIFICITY_SCORE)
"""All of them, each the mean over classes."""


def scores(names: Sequence[str]) -> list[Score]:
    """Return `SCORES`, and if there are several classes, those of each, named `auc/<class>`.

    Args:
        names: Name of each class that rows are about, in the order of its index and as metrics are named.
    """
    if len(names) < 2:
        return list(SCORES)
    single = [of_class(score, CLASS, index, name) for score in SCORES for index, name in enumerate(names)]
    return [*SCORES, *single]
