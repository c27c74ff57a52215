"""How sure a score is, and how sure one model is better than another, from what each test sample adds to it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.contracts import Outcomes
from components.params import EvaluateParams

RESAMPLED = 2**21
"""Values that the bootstrap draws at once, 8 bytes each."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Of two models' mean outcomes on the same samples, the second's less the first's."""

    mean: float
    low: float
    high: float
    """The 95 % interval's ends."""
    positive: float
    """Share of the resamplings in which it is above zero; half of those in which it is zero count, too."""


def interval(outcomes: Outcomes, params: EvaluateParams) -> Interval:
    """Return the 95 % percentile bootstrap interval (Efron 1979) of the mean outcome, which it holds.

    Sources are drawn whole (Field and Welsh 2007, J. R. Statist. Soc. B 69, section 2), so that one more sample
    of a source tells less than one of another; where there are none, or one alone, samples are drawn.
    """
    sums, counts = _by_source(outcomes, outcomes.sums)
    mean = outcomes.mean
    low, high = np.quantile(_means(sums, counts, params), [0.025, 0.975]).tolist()
    return min(low, mean), max(high, mean)


def difference(old: Outcomes, new: Outcomes, params: EvaluateParams) -> Difference:
    """Compare two models on the same samples in the same order: the paired bootstrap, drawn as in `interval`.

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 16.
    """
    assert old.names == new.names, "outcomes of other samples"
    sums, counts = _by_source(new, new.sums - old.sums)
    means = _means(sums, counts, params)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    positive = float(((means > 0) + 0.5 * (means == 0)).mean())
    return Difference(float(sums.sum() / counts.sum()), low, high, positive)


def _by_source(outcomes: Outcomes, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the sum of the values, and the count, of each source; in an order that is free of the samples'."""
    sums, counts = values, outcomes.counts
    if len(set(outcomes.sources)) > 1:
        places = np.unique(np.array(outcomes.sources, dtype=object), return_inverse=True)[1]
        sums = np.bincount(places, values).astype(np.float64)
        counts = np.bincount(places, counts).astype(np.int64)
    order = np.lexsort((counts, sums))  # the draws take sources by their place
    return sums[order], counts[order]


def _means(sums: NDArray[np.float64], counts: NDArray[np.int64], params: EvaluateParams) -> NDArray[np.float64]:
    """Draw as many sources as there are, with replacement, again and again; return each draw's mean."""
    random, size = np.random.default_rng(params.seed), len(sums)
    draws, found = max(1, RESAMPLED // size), []
    for first in range(0, params.bootstrap, draws):
        places = random.integers(size, size=(min(draws, params.bootstrap - first), size))
        found.append(sums[places].sum(1) / counts[places].sum(1))
    return np.concatenate(found)
