"""Measures equal those of other libraries, and their definitions where there is none."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.metrics import brier_score_loss, log_loss, mean_squared_error, r2_score

from components.classification import calibration, ranking
from components.classification.probabilities import COUNTED
from components.tables import measures

RANDOM = np.random.default_rng(0)
POSITIVE = (RANDOM.random(500) < 0.2).astype(float)
PROBABILITY = np.clip(0.2 + 0.3 * POSITIVE + RANDOM.normal(0, 0.2, 500), 0.01, 0.99).round(2)
FLAGGED = (PROBABILITY >= 0.3).astype(float)
COLUMNS = {
    ranking.POSITIVE: POSITIVE,
    ranking.PROBABILITY: PROBABILITY,
    ranking.FLAGGED: FLAGGED,
    COUNTED: np.ones(500),
}
EVERY = np.ones(500)


def test_log_loss_and_brier_score_equal_those_of_scikit_learn_with_weights():
    weights = RANDOM.integers(0, 3, 500).astype(float)
    expected = log_loss(POSITIVE, PROBABILITY, sample_weight=weights)
    assert measures.LOG_LOSS.of(COLUMNS, weights) == pytest.approx(expected)
    expected = brier_score_loss(POSITIVE, PROBABILITY, sample_weight=weights)
    assert measures.BRIER.of(COLUMNS, weights) == pytest.approx(expected)


def test_ks_equals_that_of_scipy_and_gini_is_that_of_the_auc():
    expected = ks_2samp(PROBABILITY[POSITIVE == 1], PROBABILITY[POSITIVE == 0]).statistic
    assert measures.KS.of(COLUMNS, EVERY) == pytest.approx(expected)
    auc = ranking.auc(POSITIVE, PROBABILITY, EVERY)
    assert measures.GINI.of(COLUMNS, EVERY) == pytest.approx(2 * auc - 1)


def test_precision_and_recall_of_a_budget_count_the_rows_with_the_highest_probabilities():
    columns = {**COLUMNS, ranking.PROBABILITY: PROBABILITY + np.arange(500) * 1e-6}
    first = np.argsort(-columns[ranking.PROBABILITY])[:50]
    precision, recall = (score.of(columns, EVERY) for score in measures.of_budget(0.1))
    assert precision == pytest.approx(POSITIVE[first].mean())
    assert recall == pytest.approx(POSITIVE[first].sum() / POSITIVE.sum())


def test_of_rows_with_equal_probability_the_expected_number_is_counted():
    columns = {**COLUMNS, ranking.PROBABILITY: np.full(500, 0.5)}
    precision, recall = (score.of(columns, EVERY) for score in measures.of_budget(0.1))
    assert precision == pytest.approx(POSITIVE.mean())
    assert recall == pytest.approx(0.1)


def test_cost_is_that_of_missed_rows_and_false_alarms():
    missed, alarms = (POSITIVE * (1 - FLAGGED)).sum(), ((1 - POSITIVE) * FLAGGED).sum()
    score = measures.cost({"missed": 5, "false_alarm": 2})
    assert score.of(COLUMNS, EVERY) == pytest.approx((5 * missed + 2 * alarms) / 500)


def test_errors_of_a_quantity_equal_those_of_scikit_learn():
    actual, predicted = RANDOM.normal(size=100), RANDOM.normal(size=100)
    columns = measures.quantity(predicted, actual)
    ones = np.ones(100)
    assert measures.RMSE.of(columns, ones) == pytest.approx(mean_squared_error(actual, predicted) ** 0.5)
    assert measures.R2.of(columns, ones) == pytest.approx(r2_score(actual, predicted))


def test_the_stability_index_is_0_for_equal_samples_and_large_for_shifted_ones():
    sample = RANDOM.normal(size=2_000)
    assert measures.stability(sample, sample) == 0
    assert measures.stability(sample, sample + 1) > 0.25


def test_net_benefit_of_flagging_all_rows_is_zero_at_the_share_of_positives():
    share = float(POSITIVE.mean())
    (benefit,) = measures.net_benefit(POSITIVE, np.ones(500), [share])
    assert benefit == pytest.approx(0)


def test_the_temperature_undoes_a_scaling_of_calibrated_logits():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    label = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert calibration.best(3 * logits, label) == pytest.approx(3, rel=0.1)


def test_labels_that_are_all_predicted_right_ask_for_no_temperature_near_zero():
    label = torch.arange(40) % 2
    logits = torch.nn.functional.one_hot(label).double() * 10
    assert calibration.best(logits, label) > 1
