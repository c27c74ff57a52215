"""Confidence intervals of a score and of a difference in scores, from outcomes per test sample.

All of them come from a jackknife: the score is computed again with each cluster left out in turn, and the spread of
these values gives the standard error (Tukey 1958; Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
chapter 11). It works for any score that is a smooth function of weighted rows, and unlike a percentile bootstrap it
keeps its level with few clusters: docs/gate.md. The intervals are t intervals, and Wilson's for a score that is a
share.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from components.contracts import Outcomes, Score

Interval = tuple[float, float]
Floats = NDArray[np.float64]

LEVEL = 0.95
"""Confidence of the intervals that are shown."""
PARTS = 100
"""Most parts of the test split that are left out in turn; with more clusters, a part is several at random."""


@dataclass(frozen=True)
class Estimate:
    """A number computed from the test split, with its uncertainty."""

    value: float
    error: float
    """Standard error; NaN if there are fewer than two clusters, or if all that is counted is in one."""
    freedom: float
    """Degrees of freedom of the t distribution; fractional if clusters differ in size."""

    @property
    def interval(self) -> Interval:
        """The two-sided interval at `LEVEL`; NaN as the error is."""
        half = quantile(1 - (1 - LEVEL) / 2, self.freedom) * self.error if self.error else 0.0
        return self.value - half, self.value + half

    def p_value(self, bound: float = 0) -> float:
        """Return the one-sided p-value of the hypothesis that the true value is at most `bound`."""
        if self.error == 0:
            return 0.0 if self.value > bound else 1.0
        p = 1 - float(stdtr(self.freedom, (self.value - bound) / self.error)) if self.freedom > 0 else math.nan
        return 1.0 if math.isnan(p) else p


def quantile(level: float, freedom: float) -> float:
    """Return a quantile of the t distribution; NaN without degrees of freedom."""
    return float(stdtrit(freedom, level)) if freedom > 0 else math.nan


def value(outcomes: Outcomes, score: Score) -> float:
    """Return the score of all samples."""
    return score.of(outcomes.columns, np.ones(len(outcomes.row_samples)))


def estimate(outcomes: Outcomes, score: Score) -> Estimate:
    """Estimate the score."""
    return jackknife(outcomes, lambda weights: score.of(outcomes.columns, weights(outcomes)))


def interval(outcomes: Outcomes, score: Score) -> Interval:
    """Return the 95 % interval of the score.

    From a single cluster or sample it is all that a share can be, and for any other score the score at both ends.
    Samples without a row that the score counts are left out.
    """
    if score.counted:
        rows = np.flatnonzero(score.counted(outcomes.columns))
        outcomes = _having(outcomes, rows, np.unique(outcomes.row_samples[rows]))
    found = estimate(outcomes, score)
    if score.share:
        return _of_share(found, len(np.unique(outcomes.row_samples)), score.graded)
    return (found.value, found.value) if math.isnan(found.error) else found.interval


def _of_share(found: Estimate, samples: int, graded: bool) -> Interval:
    """Return Wilson's interval of a share, which has a width even where all outcomes are equal.

    The number of samples is the effective one, with which independent samples would have the same standard error
    (Wilson 1927, JASA 22; Korn and Graubard 1998, Survey Methodology 24; Franco et al. 2019, Journal of Survey
    Statistics and Methodology 7). It is at most the actual number, unless samples are graded, and the actual number
    where the jackknife shows no error.
    """
    if math.isnan(found.value):
        return math.nan, math.nan
    if math.isnan(found.error):
        return 0.0, 1.0
    variance = max(found.value * (1 - found.value), 0.0)
    effective = variance / found.error**2 if variance and found.error else samples
    count = effective if graded else min(samples, effective)
    t = quantile(1 - (1 - LEVEL) / 2, found.freedom)
    shrunk = 1 + t**2 / count
    middle = (found.value + t**2 / (2 * count)) / shrunk
    half = t / shrunk * math.sqrt(variance / count + (t / (2 * count)) ** 2)
    # Rounding must not put the ends beyond the score.
    return max(0.0, min(middle - half, found.value)), min(1.0, max(middle + half, found.value))


def difference(old: Outcomes, new: Outcomes, score: Score) -> Estimate:
    """Return by how much the second version's score exceeds the first's, on the same samples in the same order."""
    assert list(old.samples) == list(new.samples), "outcomes of other samples"
    return jackknife(new, lambda weights: score.of(new.columns, weights(new)) - score.of(old.columns, weights(old)))


Weights = Callable[[Outcomes], Floats]
"""Returns the weight of each row of outcomes of the same samples: 0 if its cluster is left out, or else 1."""


def jackknife(outcomes: Outcomes, of: Callable[[Weights], float]) -> Estimate:
    """Estimate a function of weighted outcomes.

    Clusters are left out as wholes, as samples of a cluster are not independent. With fewer than two clusters,
    samples are left out. The degrees of freedom are one less than the effective number of parts, which is smaller
    if they differ in size (Carter, Schnepel and Steigerwald 2017, Review of Economics and Statistics 99).

    Args:
        outcomes: Their samples and clusters are those to leave out.
        of: Computes the number from weights of rows.
    """
    part_of_sample = _parts(outcomes)
    full = of(lambda each: np.ones(len(each.row_samples)))
    sizes = np.bincount(part_of_sample)
    without = [of(partial(_without, part_of_sample, part)) for part in range(len(sizes))]
    spread = np.array(without) - np.mean(without)
    if len(spread) < 2 or np.isnan(spread).any() or math.isnan(full):  # NaN: nothing to count without some part
        return Estimate(full, math.nan, 0)
    error = math.sqrt((len(spread) - 1) / len(spread) * float((spread**2).sum()))
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    return Estimate(full, _without_rounding(error, full), effective - 1)


def _without(part_of_sample: NDArray[np.int64], part: int, outcomes: Outcomes) -> Floats:
    left: NDArray[np.bool_] = part_of_sample[outcomes.row_samples] != part
    return left.astype(np.float64)


def _without_rounding(error: float, value: float) -> float:
    """Return 0 for an error that is only that of floating point."""
    return 0.0 if error <= 1e-12 * max(1.0, abs(value)) else error


def units(outcomes: Outcomes) -> Sequence[str]:
    """Return each sample's cluster, or its own name with fewer than two clusters."""
    return outcomes.clusters if len(set(outcomes.clusters)) > 1 else outcomes.samples


def _parts(outcomes: Outcomes) -> NDArray[np.int64]:
    """Return the part of each sample, N: one per unit, or `PARTS` of random units."""
    # Sorted by name, so that the parts do not depend on the order of the samples.
    names, unit_of_sample = np.unique(np.array(units(outcomes), dtype=object), return_inverse=True)
    part_of_unit = np.random.default_rng(0).permutation(len(names)) % PARTS
    parts: NDArray[np.int64] = part_of_unit[unit_of_sample]
    return parts


def group_values(outcomes: Outcomes, score: Score, kind: str) -> dict[str, float]:
    """Return the score of each group of a kind, such as class, from the rows of that group."""
    groups = np.array(outcomes.groups[kind], dtype=object)
    return {
        str(name): score.of(outcomes.columns, (groups == name).astype(np.float64)) for name in np.unique(groups)
    }


def group_differences(
    old: Outcomes, new: Outcomes, score: Score, kind: str
) -> dict[str, tuple[Outcomes, Estimate]]:
    """Return for each group of a kind its samples, and by how much the second version's score is higher."""
    rows: dict[str, list[NDArray[np.int64]]] = {}
    for each in (old, new):
        groups = np.array(each.groups[kind], dtype=object)
        for name in np.unique(groups):
            rows.setdefault(str(name), [np.array([], np.int64), np.array([], np.int64)])
            rows[str(name)][each is new] = np.flatnonzero(groups == name)
    found = {}
    for name, (before, after) in sorted(rows.items()):
        samples = np.union1d(old.row_samples[before], new.row_samples[after])
        pair = _having(old, before, samples), _having(new, after, samples)
        found[name] = pair[1], difference(*pair, score)
    return found


def _having(outcomes: Outcomes, rows: NDArray[np.int64], samples: NDArray[np.int64]) -> Outcomes:
    """Return only these rows and samples of outcomes."""
    return Outcomes(
        [outcomes.samples[index] for index in samples],
        {name: column[rows] for name, column in outcomes.columns.items()},
        np.searchsorted(samples, outcomes.row_samples[rows]),
        [outcomes.clusters[index] for index in samples] if outcomes.clusters else (),
    )


def sample_values(outcomes: Outcomes, score: Score) -> Floats:
    """Return the score of each sample alone, (N,); NaN for samples with nothing to count."""
    rows = outcomes.row_samples
    order = np.argsort(rows, kind="stable")
    edges = np.searchsorted(rows[order], np.arange(len(outcomes.samples) + 1))
    columns = {name: column[order] for name, column in outcomes.columns.items()}
    values = np.full(len(outcomes.samples), np.nan)
    for index in range(len(values)):
        first, last = edges[index : index + 2]
        if last > first:
            own = {name: column[first:last] for name, column in columns.items()}
            values[index] = score.of(own, np.ones(last - first))
    return values
