"""Scores of probabilities, as scikit-learn computes them."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score, roc_curve

from components.classification import ranking
from components.classification.decision import Decision, probabilities


def drawn(seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw labels, probabilities and weights, some of which are 0."""
    random = np.random.default_rng(seed)
    positive = (random.random(200) < 0.3).astype(float)
    probability = np.clip(0.3 * positive + random.random(200) * 0.7, 0, 1)
    weights = np.maximum(random.random(200) * 3 - 0.5, 0)
    return positive, np.round(probability, 1) if ties else probability, weights


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_areas_are_those_of_scikit_learn_with_weights(seed, ties):
    positive, probability, weights = drawn(seed, ties)
    for own, other in ((ranking.auc, roc_auc_score), (ranking.average_precision, average_precision_score)):
        for some in (weights, np.ones(200)):
            expected = other(positive, probability, sample_weight=some)
            assert own(positive, probability, some) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_sensitivity_at_a_specificity_is_the_highest_point_of_the_roc_curve_left_of_it(ties):
    positive, probability, weights = drawn(7, ties)
    rate, sensitivity, _ = roc_curve(positive, probability, sample_weight=weights, drop_intermediate=False)
    expected = sensitivity[rate <= 0.05 + 1e-12].max()
    assert ranking.sensitivity_at(positive, probability, weights) == pytest.approx(expected)


def test_a_specificity_of_exactly_95_percent_is_enough():
    positive, probability = np.array([0.0] * 20 + [1.0]), np.array([0.1] * 19 + [0.9, 0.5])
    assert ranking.sensitivity_at(positive, probability, np.ones(21)) == 1
    assert ranking.sensitivity_at(positive[1:], probability[1:], np.ones(20)) == 0


@pytest.mark.parametrize("of", [ranking.auc, ranking.sensitivity_at, ranking.average_precision])
def test_what_needs_positives_is_not_a_number_without_them(of):
    assert math.isnan(of(np.zeros(3), np.array([0.1, 0.2, 0.3]), np.ones(3)))
    assert math.isnan(of(np.array([1.0, 0.0]), np.array([0.1, 0.2]), np.array([0.0, 1.0])))
    assert math.isnan(of(np.zeros(0), np.zeros(0), np.zeros(0)))


def test_the_threshold_makes_sensitivity_plus_specificity_largest_and_is_between_two_probabilities():
    positive = np.array([0, 0, 0, 1, 0, 1, 1.0])
    probability = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.9])
    assert ranking.threshold(positive, probability) == pytest.approx(0.25)
    assert ranking.threshold(1 - positive, 1 - probability) == pytest.approx(0.75)
    assert ranking.threshold(np.array([0.0, 1.0]), np.array([0.1, 0.2])) == pytest.approx(0.15)
    assert ranking.threshold(np.zeros(2), np.array([0.1, 0.9])) == 0.5


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_reaches_the_largest_index_of_scikit_learns_curve(seed, ties):
    positive, probability, _ = drawn(seed, ties)
    rate, sensitivity, _ = roc_curve(positive, probability)
    flagged = probability >= ranking.threshold(positive, probability)
    reached = recall_score(positive, flagged) + recall_score(positive, flagged, pos_label=0) - 1
    assert reached == pytest.approx((sensitivity - rate).max())


def test_of_several_equally_good_thresholds_the_one_nearest_to_a_half_is_taken():
    positive, probability = np.array([0, 1, 0, 1.0]), np.array([0.1, 0.4, 0.6, 0.95])
    assert ranking.threshold(positive, probability) == pytest.approx(0.25)


def test_a_decision_takes_the_threshold_of_each_label():
    decision = Decision(None, 2)
    label = torch.tensor([[0, 1], [0, 0], [1, 1], [1, 0]], dtype=torch.uint8)
    logits = torch.tensor([[-3.0, 1.0], [-2.0, -1.0], [-1.0, 2.0], [0.0, 0.5]])
    decision.choose([{"logits": logits[:3], "label": label[:3]}, {"logits": logits[3:], "label": label[3:]}])
    flagged = probabilities(logits, None) >= decision.threshold
    assert torch.equal(flagged, label > 0)
    assert decision.state_dict().keys() == {"threshold"}


def columns(several: bool = True) -> dict[str, np.ndarray]:
    """Return three samples with two labels each."""
    return {
        "positive": np.array([1, 0, 0, 1, 1, 1.0]),
        "probability": np.array([0.9, 0.3, 0.4, 0.2, 0.3, 0.8]),
        "flagged": np.array([1, 0, 1, 0, 0, 1.0]),
        "class": np.array([0, 1, 0, 1, 0, 1.0]),
    }


def test_scores_of_several_classes_are_the_mean_over_classes_and_each_class_has_its_own():
    named = {score.name: score for score in ranking.scores(["cat", "dog"])}
    ones = np.ones(6)
    assert named["auc/cat"].of(columns(), ones) == 0.5
    assert named["auc/dog"].of(columns(), ones) == 0.5
    assert named["auc"].of(columns(), ones) == 0.5
    assert named["sensitivity/cat"].of(columns(), ones) == 0.5
    assert named["specificity/cat"].of(columns(), ones) == 0
    assert named["specificity/dog"].of(columns(), ones) == 1
    assert named["specificity"].of(columns(), ones) == 0.5
    assert [score.name for score in ranking.scores(["one"])] == [score.name for score in ranking.SCORES]


def test_sensitivity_counts_positives_alone_and_specificity_negatives():
    named = {score.name: score for score in ranking.scores(["cat", "dog"])}
    assert named["sensitivity"].counted(columns()).tolist() == [True, False, False, True, True, True]
    assert named["specificity/cat"].counted(columns()).tolist() == [False, False, True, False, False, False]


def test_a_class_without_positives_is_left_out_of_the_mean():
    table = columns() | {"positive": np.array([1, 0, 0, 0, 1, 0.0])}
    assert ranking.AUC.of(table, np.ones(6)) == 0.5
    assert math.isnan(ranking.AUC.of(table | {"positive": np.zeros(6)}, np.ones(6)))
