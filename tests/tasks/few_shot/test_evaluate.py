"""Episodes of testing, and the accuracy for any number of new classes."""

import numpy as np
import pytest
import torch

from components.tasks.few_shot import evaluate
from components.trust import intervals

LABEL = torch.arange(30).repeat_interleave(8)


def apart(noise: float) -> torch.Tensor:
    """Return embeddings of 30 classes of 8 images, all equally far from each other but for noise."""
    return 4 * torch.eye(30)[LABEL] + noise * torch.randn(240, 30, generator=torch.Generator().manual_seed(0))


def test_classes_that_are_far_apart_are_all_recognised_and_noise_is_recognised_by_chance():
    assert evaluate.measure(apart(0.1), LABEL, 20, 1, 50).accuracies.mean() == 1
    random = torch.randn(240, 30, generator=torch.Generator().manual_seed(1))
    assert evaluate.measure(random, LABEL, 5, 1, 400).accuracies.mean() == pytest.approx(1 / 5, abs=0.02)


def test_an_episode_is_counted_as_by_hand():
    embedding = apart(1.0)
    result = evaluate.measure(embedding, LABEL, 5, 2, 3)
    places = evaluate.fixed(LABEL, 3, 5, 2 + result.queries, evaluate.SEED)
    for episode in range(3):
        prototypes = np.stack([embedding[way[:2]].mean(0) for way in places[episode]])
        for way, images in enumerate(places[episode]):
            right = [np.square(prototypes - embedding[i].numpy()).sum(1).argmin() == way for i in images[2:]]
            assert result.correct[episode, way] == sum(right)
            assert result.classes[episode, way] == LABEL[images[0]]


def test_versions_meet_the_same_episodes():
    one, two = (evaluate.measure(apart(noise), LABEL, 5, 1, 20) for noise in (0.5, 1.5))
    np.testing.assert_array_equal(one.classes, two.classes)
    assert one.accuracies.mean() > two.accuracies.mean()


def test_outcomes_are_of_classes_and_make_up_the_accuracy_of_each_kind():
    found = evaluate._outcomes(apart(1.0), LABEL, [f"c{number}" for number in range(30)])
    assert list(found.samples) == [f"c{number}" for number in range(30)]
    accuracies = {name: result.accuracies.mean() for name, result in evaluate._results(apart(1.0), LABEL).items()}
    assert intervals.value(found, evaluate.ACCURACY) == pytest.approx(np.mean(list(accuracies.values())))
    groups = intervals.group_values(found, evaluate.ACCURACY, "episodes")
    assert groups == pytest.approx(accuracies)
    assert list(accuracies) == ["5-way 1-shot", "5-way 5-shot", "20-way 1-shot", "20-way 5-shot"]


def test_few_classes_are_tested_in_the_episodes_that_they_allow():
    assert evaluate.possible([7] * 8) == [(5, 1), (5, 5)]
    assert evaluate.possible([4] * 30) == [(5, 1), (20, 1)]
    assert evaluate.possible([2] * 3) == [(3, 1)]


def test_the_accuracy_for_a_number_of_classes_lies_between_those_that_were_measured():
    metrics = {"accuracy": 0.5, "accuracy/10-way 5-shot": 0.9, "accuracy/100-way 5-shot": 0.7}
    metrics |= {"accuracy/10-way 1-shot": 0.6, "accuracy/100-way 1-shot": 0.4, "accuracy_low/10-way 5-shot": 0.1}
    assert evaluate.expected(metrics, 10, 5) == pytest.approx(0.9)
    assert evaluate.expected(metrics, 10, 8) == pytest.approx(0.9), "of 8 images, what is known is that of 5"
    assert evaluate.expected(metrics, 32, 3) == pytest.approx(0.5, abs=0.01)
    assert evaluate.expected(metrics, 5000, 5) == pytest.approx(0.7)
