"""Intervals and differences are as wide as theory says, and drawn by source."""

import tracemalloc

import numpy as np
import pytest

from components.contracts import Outcomes
from components.params import EvaluateParams
from components.trust.bootstrap import difference, interval

PARAMS = EvaluateParams(workers=0, batch_size=1, bootstrap=4000, seed=0)


def of(sums, counts=None, sources=()):
    values = np.asarray(sums, np.float64)
    ones = np.ones(len(values), np.int64)
    return Outcomes(
        [str(i) for i in range(len(values))], values, ones if counts is None else np.array(counts), (), sources
    )


def test_the_interval_contains_the_mean_and_is_as_wide_as_theory_says_whatever_the_order():
    correct = np.r_[np.ones(900), np.zeros(100)]
    low, high = interval(of(correct), PARAMS)
    assert low < 0.9 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.9 * 0.1 / 1000), rel=0.1)
    assert interval(of(correct), PARAMS) == (low, high)
    assert interval(of(np.random.default_rng(1).permutation(correct)), PARAMS) == (low, high)


def test_a_single_sample_has_an_interval_too():
    assert interval(of([1.0]), PARAMS) == (1.0, 1.0)


def test_samples_of_one_source_are_drawn_together_so_that_copies_make_nothing_surer():
    right = (np.arange(40) % 4 > 0).astype(float)
    once, copies = of(right), right.repeat(5)
    told = of(copies, sources=[f"source {i // 5}" for i in range(200)])
    width = {name: np.ptp(interval(o, PARAMS)) for name, o in (("once", once), ("told", told), ("not", of(copies)))}
    assert width["told"] == pytest.approx(width["once"])
    assert width["not"] < 0.6 * width["once"]


def test_one_source_alone_says_nothing_of_sources_so_its_samples_are_drawn():
    right = np.arange(40) % 4 > 0
    assert interval(of(right, sources=["ann"] * 40), PARAMS) == interval(of(right), PARAMS)


def test_a_source_weighs_as_much_as_it_has_samples():
    assert interval(of([9.0, 0.0], [9, 1]), PARAMS) == (0.0, 1.0)
    assert of([9.0, 0.0], [9, 1]).mean == 0.9


def test_the_bootstrap_of_a_large_split_needs_little_memory():
    correct = np.arange(300_000) % 3 > 0
    tracemalloc.start()
    interval(of(correct), PARAMS.model_copy(update={"bootstrap": 200}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # 200 resamplings at once would be 480 MB of places alone


def test_a_small_difference_on_the_same_samples_is_sure_where_two_intervals_overlap():
    old = (np.arange(1000) % 10 > 1).astype(float)
    new = old.copy()
    new[np.flatnonzero(old == 0)[:12]] = 1  # twelve more are right, and none is lost
    assert interval(of(old), PARAMS)[1] > interval(of(new), PARAMS)[0]
    found = difference(of(old), of(new), PARAMS)
    assert found.mean == pytest.approx(0.012)
    assert 0 < found.low < 0.012 < found.high
    assert found.positive == 1


def test_a_model_is_not_surely_better_than_itself():
    same = of(np.arange(50) % 3 > 0)
    found = difference(same, same, PARAMS)
    assert (found.mean, found.low, found.high, found.positive) == (0, 0, 0, 0.5)


def test_as_many_won_as_lost_is_no_difference():
    old, new = np.zeros(200), np.zeros(200)
    old[:20], new[20:40] = 1, 1
    found = difference(of(old), of(new), PARAMS)
    assert found.low < 0 < found.high
    assert found.positive == pytest.approx(0.5, abs=0.05)
