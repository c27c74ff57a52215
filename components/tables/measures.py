"""Measures of probabilities and quantities for tables, as functions of weighted rows: see `contracts.Score`.

The columns are those of `classification.probabilities`. Rows with equal probability are flagged together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from components.classification import ranking
from components.classification.probabilities import COUNTED
from components.classification.ranking import FLAGGED, POSITIVE, PROBABILITY
from components.contracts import Columns, Score
from components.scores import ratio

Floats = NDArray[np.float64]
TOP = 0.01
"""Share of rows for which precision is given."""
LEAST = 1e-15
"""Smallest probability whose logarithm is taken, as in scikit-learn's `log_loss` of float64."""
ERROR, SQUARE, ABSOLUTE, ACTUAL = "error", "square", "absolute", "actual"
"""Columns of outcomes of a quantity: predicted minus actual, its square and absolute value, and the actual one."""


def _log_loss(columns: Columns, weights: Floats) -> float:
    """Return the mean negative logarithm of the true class's probability, in nats."""
    own = weights * columns[COUNTED]
    probability = np.where(columns[POSITIVE] == 1, columns[PROBABILITY], 1 - columns[PROBABILITY])
    nats = -np.log(np.clip(probability, LEAST, 1))
    return float(own @ nats / own.sum()) if own.sum() else math.nan


def _brier(columns: Columns, weights: Floats) -> float:
    """Return the mean squared difference of probability and outcome (Brier 1950), summed over several classes."""
    counted = weights @ columns[COUNTED]
    squares = (columns[PROBABILITY] - columns[POSITIVE]) ** 2
    return float(weights @ squares / counted) if counted else math.nan


def _of_curve(of: Callable[[Floats, Floats], float], columns: Columns, weights: Floats) -> float:
    """Return a function of the weights of true and false positives at each threshold; NaN as AUC is."""
    true, false = ranking.curve(columns[POSITIVE], columns[PROBABILITY], weights)
    return of(true, false) if true[-1] and false[-1] else math.nan


def _ks(true: Floats, false: Floats) -> float:
    """Return the largest difference between the shares of positives and of negatives that are flagged."""
    return float((true / true[-1] - false / false[-1]).max())


def _gini(columns: Columns, weights: Floats) -> float:
    return 2 * ranking.auc(columns[POSITIVE], columns[PROBABILITY], weights) - 1


def _caught(share: float, true: Floats, false: Floats) -> float:
    """Return the weight of positives among a share of the rows with the highest probabilities.

    Of rows with equal probability at the end of the share, the expected number at random is counted.
    """
    flagged = true + false
    return float(np.interp(share * flagged[-1], flagged, true))


def _precision(share: float, true: Floats, false: Floats) -> float:
    return _caught(share, true, false) / (share * float(true[-1] + false[-1]))


def _recall(share: float, true: Floats, false: Floats) -> float:
    return _caught(share, true, false) / float(true[-1])


def _cost(costs: Mapping[str, float], columns: Columns, weights: Floats) -> float:
    """Return the mean cost of a row."""
    positive, flagged = columns[POSITIVE], columns[FLAGGED]
    cost = costs["missed"] * positive * (1 - flagged) + costs["false_alarm"] * (1 - positive) * flagged
    return float(weights @ cost / weights.sum()) if weights.sum() else math.nan


LOG_LOSS = Score("log_loss", "less", _log_loss)
BRIER = Score("brier", "less", _brier)
KS = Score("ks", "more", partial(_of_curve, _ks), share=True)
GINI = Score("gini", "more", _gini)
PRECISION_AT_TOP = Score("precision_at_1_percent", "more", partial(_of_curve, partial(_precision, TOP)), share=True)


def of_budget(share: float) -> list[Score]:
    """Return precision and recall of the share of rows with the highest probabilities."""
    return [
        Score("precision_of_alerts", "more", partial(_of_curve, partial(_precision, share)), share=True),
        Score("recall_of_alerts", "more", partial(_of_curve, partial(_recall, share)), share=True),
    ]


def cost(costs: Mapping[str, float]) -> Score:
    """Return the mean cost of a row, given those of a missed positive and of a false alarm."""
    return Score("cost", "less", partial(_cost, costs))


def _rmse(columns: Columns, weights: Floats) -> float:
    return math.sqrt(float(weights @ columns[SQUARE] / weights.sum())) if weights.sum() else math.nan


def _r2(columns: Columns, weights: Floats) -> float:
    """Return the share of the variance that is explained."""
    total = weights.sum()
    if not total:
        return math.nan
    actual = columns[ACTUAL]
    spread = float(weights @ (actual - weights @ actual / total) ** 2)
    return 1 - float(weights @ columns[SQUARE]) / spread if spread else math.nan


RMSE = Score("rmse", "less", _rmse)
MAE = ratio("mae", "less", ABSOLUTE)
R2 = Score("r2", "more", _r2)
BIAS = ratio("bias", "less", ERROR)
OF_QUANTITY = (RMSE, MAE, R2, BIAS)
"""Scores of a quantity, of which the first compares versions."""


def quantity(predicted: Floats, actual: Floats) -> dict[str, Floats]:
    """Return the columns of outcomes of a quantity."""
    error = predicted - actual
    return {ERROR: error, SQUARE: error**2, ABSOLUTE: np.abs(error), ACTUAL: actual}


def stability(before: Floats, after: Floats, parts: int = 10) -> float:
    """Return the population stability index of a number between two samples.

    The parts are between quantiles of the first sample; a part that is empty in one sample counts as half a row.
    Below 0.1 is usually taken for stable, above 0.25 for shifted (Siddiqi 2006, "Credit Risk Scorecards").
    """
    edges = np.unique(np.quantile(before, np.linspace(0, 1, parts + 1)[1:-1], method="nearest"))
    shares = []
    for sample in (before, after):
        counts = np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(edges) + 1)
        shares.append(np.maximum(counts, 0.5) / len(sample))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def net_benefit(positive: Floats, probability: Floats, thresholds: Sequence[float]) -> Floats:
    """Return the net benefit of flagging rows from each threshold on, (T,).

    That is the share of true positives, less that of false ones at the odds of the threshold (Vickers and Elkin
    2006, Medical Decision Making 26).
    """
    found = []
    for threshold in thresholds:
        flagged = probability >= threshold
        true, false = float((flagged * positive).mean()), float((flagged * (1 - positive)).mean())
        found.append(true - false * threshold / (1 - threshold))
    return np.array(found)
