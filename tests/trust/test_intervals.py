"""Intervals and differences are as wide as theory says, and count clusters."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from components import scores
from components.contracts import Outcomes, Score
from components.trust.intervals import difference, group_differences, group_values, interval, sample_values, value

MEAN = scores.ratio("mean", "more", "sum", "count")


def names(count):
    return [f"{i:06d}" for i in range(count)]


def of(sums, counts=None, clusters=(), sample=None, **groups):
    values = np.asarray(sums, np.float64)
    ones = np.ones(len(values)) if counts is None else np.asarray(counts, np.float64)
    samples = names(len(values) if sample is None else int(max(sample)) + 1)
    rows = None if sample is None else np.asarray(sample)
    return Outcomes(samples, {"sum": values, "count": ones}, rows, clusters, groups)


def width(outcomes):
    return np.ptp(interval(outcomes, MEAN))


def test_the_interval_contains_the_mean_and_is_as_wide_as_theory_says_whatever_the_order():
    correct = np.r_[np.ones(900), np.zeros(100)]
    low, high = interval(of(correct), MEAN)
    assert low < 0.9 < high
    assert high - low == pytest.approx(2 * 1.98 * np.sqrt(0.9 * 0.1 / 1000), rel=0.2)
    order = np.random.default_rng(1).permutation(1000)
    shuffled = Outcomes([names(1000)[i] for i in order], {"sum": correct[order], "count": np.ones(1000)})
    assert interval(shuffled, MEAN) == pytest.approx((low, high), rel=1e-12)


def test_with_a_mean_of_few_samples_the_interval_is_students():
    values = np.array([0.1, 0.4, 0.35, 0.8, 0.6])
    low, high = stats.t.interval(0.95, 4, values.mean(), values.std(ddof=1) / np.sqrt(5))
    assert interval(of(values), MEAN) == pytest.approx((low, high))


SHARE = scores.ratio("accuracy", "more", "sum", share=True)


def test_the_interval_of_a_share_is_wilsons():
    t = stats.t.ppf(0.975, 35)
    assert interval(of(np.ones(36)), SHARE) == pytest.approx((36 / (36 + t**2), 1))
    assert interval(of(np.zeros(36)), SHARE) == pytest.approx((0, t**2 / (36 + t**2)))
    exact = stats.binomtest(900, 1000).proportion_ci(method="wilson")
    found = interval(of(np.r_[np.ones(900), np.zeros(100)]), SHARE)
    assert found == pytest.approx((exact.low, exact.high), abs=0.001)


def test_a_share_that_is_higher_has_a_higher_interval_up_to_the_last_sample():
    ends = [interval(of(np.r_[np.ones(right), np.zeros(36 - right)]), SHARE) for right in range(37)]
    assert ends == sorted(ends)
    assert [high for _, high in ends] == sorted(high for _, high in ends)


def test_the_interval_of_a_share_covers_it_as_often_as_stated():
    ends = [interval(of(np.r_[np.ones(right), np.zeros(36 - right)]), SHARE) for right in range(37)]
    for share in (0.5, 0.8, 0.9, 0.95, 0.98):
        chance = stats.binom.pmf(np.arange(37), 36, share)
        covered = sum(p for p, (low, high) in zip(chance, ends, strict=True) if low <= share <= high)
        assert covered > 0.94, share


def test_a_share_that_is_no_mean_may_be_1_and_lower_without_some_sample():
    lowest = Score("lowest", "more", lambda columns, weights: 1.0 if weights.all() else 0.5, share=True)
    low, high = interval(of(np.ones(9)), lowest)
    assert 0 < low < high == 1


def test_the_interval_of_samples_that_are_right_in_part_is_as_wide_as_they_differ():
    graded, scattered = replace(SHARE, graded=True), np.tile([0.88, 0.92], 20)
    student, yes_or_no = (np.ptp(interval(of(scattered), score)) for score in (MEAN, SHARE))
    assert np.ptp(interval(of(scattered), graded)) == pytest.approx(student, rel=0.01)
    assert yes_or_no > 10 * student
    assert interval(of(np.ones(36)), graded) == interval(of(np.ones(36)), SHARE)


def test_clusters_that_differ_make_the_interval_of_a_share_wider():
    right, speakers = np.r_[np.ones(180), np.zeros(20)], [f"speaker {i // 20}" for i in range(200)]
    assert np.ptp(interval(of(right, clusters=speakers), SHARE)) > 2 * np.ptp(interval(of(right), SHARE))


def test_a_single_sample_has_an_interval_too():
    assert interval(of([1.0]), MEAN) == (1.0, 1.0)
    assert interval(of([1.0]), SHARE) == (0.0, 1.0)


def test_samples_of_one_cluster_count_together_so_that_copies_make_nothing_surer():
    right = (np.arange(40) % 4 > 0).astype(float)
    copies = right.repeat(5)
    together = of(copies, clusters=[f"speaker {i // 5:02d}" for i in range(200)])
    assert width(together) == pytest.approx(width(of(right)))
    assert width(of(copies)) < 0.6 * width(of(right))


def test_clusters_of_unequal_size_count_as_fewer():
    alike = difference_of_clusters([20] * 10)
    unlike = difference_of_clusters([110, *[10] * 9])
    assert alike.freedom == pytest.approx(9)
    assert unlike.freedom == pytest.approx(200**2 / (110**2 + 9 * 10**2) - 1)


def difference_of_clusters(sizes):
    clusters = [f"speaker {number}" for number, size in enumerate(sizes) for _ in range(size)]
    random = np.random.default_rng(0)
    return difference(*(of(random.random(200), clusters=clusters) for _ in range(2)), MEAN)


def test_one_cluster_alone_says_nothing_of_clusters_so_its_samples_count():
    right = np.arange(40) % 4 > 0
    assert interval(of(right, clusters=["ann"] * 40), MEAN) == interval(of(right), MEAN)


def test_a_sample_weighs_as_much_as_it_counts():
    unequal = of([9.0, 0.0], [9, 1])
    assert value(unequal, MEAN) == 0.9
    low, high = interval(unequal, MEAN)
    assert low < 0 < 1 < high, "two samples say little"


def test_the_rows_of_a_sample_count_together():
    right = (np.arange(40) % 4 > 0).astype(float)
    rows = of(right.repeat(5), sample=np.arange(40).repeat(5))
    assert width(rows) == pytest.approx(width(of(right)))


def test_a_sample_without_a_row_changes_no_score():
    rows = of([1.0, 0.0, 1.0], sample=[0, 0, 3])
    assert value(rows, MEAN) == pytest.approx(2 / 3)
    low, high = interval(rows, MEAN)
    assert low < 2 / 3 < high
    assert np.isnan(sample_values(rows, MEAN)).tolist() == [False, True, True, False]


def test_the_score_of_a_sample_is_that_of_its_own_rows_in_whatever_order_they_are():
    rows = of([1.0, 0.0, 1.0, 0.0, 0.0], sample=[1, 0, 1, 2, 1])
    assert sample_values(rows, MEAN).tolist() == [0.0, pytest.approx(2 / 3), 0.0]


def test_the_score_of_a_group_is_that_of_its_own_rows():
    rows = of([1.0, 0.0, 1.0, 1.0], site=["north", "north", "south", "south"], lamp=["on", "off", "on", "off"])
    assert group_values(rows, MEAN, "site") == {"north": 0.5, "south": 1.0}
    assert group_values(rows, MEAN, "lamp") == {"on": 1.0, "off": 0.5}


def test_a_score_that_is_no_mean_is_computed_without_the_rows_of_each_cluster_in_turn():
    f1 = Score("f1", "more", lambda c, w: float(2 * (w @ c["hit"]) / (w @ (c["found"] + c["there"]))))
    columns = {
        "hit": np.array([1.0, 0, 1, 1]),
        "found": np.array([1.0, 1, 1, 1]),
        "there": np.array([1.0, 0, 1, 1]),
    }
    outcomes = Outcomes(["a", "b", "c", "d"], columns)
    without = [f1.of({n: np.delete(c, i) for n, c in columns.items()}, np.ones(3)) for i in range(4)]
    error = np.sqrt(3 / 4 * ((np.array(without) - np.mean(without)) ** 2).sum())
    half = stats.t.ppf(0.975, 3) * error
    assert value(outcomes, f1) == pytest.approx(2 * 3 / (4 + 3))
    assert interval(outcomes, f1) == pytest.approx((6 / 7 - half, 6 / 7 + half))


def test_the_interval_of_a_large_split_needs_little_memory():
    correct = np.arange(300_000) % 3 > 0
    tracemalloc.start()
    interval(of(correct), MEAN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # the weights of all parts at once would be 240 MB


def test_a_small_difference_on_the_same_samples_is_sure_where_two_intervals_overlap():
    old = (np.arange(1000) % 10 > 1).astype(float)
    new = old.copy()
    new[np.flatnonzero(old == 0)[:12]] = 1  # twelve more are right, and none is lost
    assert interval(of(old), MEAN)[1] > interval(of(new), MEAN)[0]
    found = difference(of(old), of(new), MEAN)
    assert found.value == pytest.approx(0.012)
    assert 0 < found.interval[0] < 0.012 < found.interval[1]
    assert found.p_value() < 0.001
    assert found.p_value(0.012) == pytest.approx(0.5)


def test_a_model_is_not_surely_better_than_itself():
    same = of(np.arange(50) % 3 > 0)
    found = difference(same, same, MEAN)
    assert (found.value, found.interval, found.p_value()) == (0, (0, 0), 1)


def test_as_many_won_as_lost_is_no_difference():
    old, new = np.zeros(200), np.zeros(200)
    old[:20], new[20:40] = 1, 1
    found = difference(of(old), of(new), MEAN)
    assert found.interval[0] < 0 < found.interval[1]
    assert found.p_value() == pytest.approx(0.5)


def test_the_clusters_of_the_new_version_count_where_the_old_one_knows_none():
    """So it is with a champion from before the pattern that tells the speaker was right."""
    old = (np.arange(1000) % 10 > 1).astype(float)
    clusters = [f"speaker {i // 2:03d}" for i in range(1000)]
    new = old.copy()
    new[np.flatnonzero(old == 0)[:12]] = 1
    paired = difference(of(old, clusters=clusters), of(new, clusters=clusters), MEAN)
    assert difference(of(old), of(new, clusters=clusters), MEAN) == paired


def test_versions_with_other_numbers_of_rows_are_compared_sample_by_sample():
    """As detectors are, which find more in one image than in another."""
    old = of([1.0, 0.0, 0.0, 1.0], sample=[0, 0, 1, 2])
    new = of([1.0, 1.0, 1.0], sample=[0, 1, 2])
    found = difference(old, new, MEAN)
    assert found.value == pytest.approx(0.5)
    assert found.interval[0] < 0.5 < found.interval[1]


def test_one_sample_with_something_to_count_proves_nothing():
    counts = [1, 0, 0, 0]
    found = difference(of([0, 0, 0, 0], counts), of([1, 0, 0, 0], counts), MEAN)
    assert (found.value, found.p_value()) == (1, 1)


def test_scores_that_are_undefined_differ_by_no_number():
    nothing = of([0.0, 0.0], [0, 0])
    found = difference(nothing, nothing, MEAN)
    assert np.isnan([found.value, found.error, *found.interval]).all()
    assert found.p_value() == 1


def test_a_groups_difference_is_that_of_its_rows_in_both_versions():
    """As of detectors, whose boxes of a class stand on other images."""
    old = of([1.0, 0.0, 0.0, 1.0], sample=[0, 0, 1, 3], kind=["cat", "dog", "cat", "cat"])
    new = of([1.0, 1.0, 1.0], sample=[0, 1, 3], kind=["cat", "dog", "cat"])
    found = group_differences(old, new, MEAN, "kind")
    assert {name: list(samples.samples) for name, (samples, _) in found.items()} == {
        "cat": names(4)[:2] + names(4)[3:],
        "dog": names(4)[:2],
    }
    assert found["cat"][1].value == pytest.approx(1 - 2 / 3)
    assert found["dog"][1].value == 1


def test_a_single_sample_proves_nothing():
    assert difference(of([0.0]), of([1.0]), MEAN).p_value() == 1
