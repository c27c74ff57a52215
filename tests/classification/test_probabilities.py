"""Outcomes and metrics of probabilities: of two classes, of many, and of several labels."""

import csv
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, hamming_loss, recall_score, roc_auc_score

from components.classification import labels, probabilities
from components.classification.answers import answers, decided
from components.classification.probabilities import ACCURACY, Problem
from components.classification.ranking import AUC, SENSITIVITY
from components.classification.report import Samples
from components.contracts import Rejected
from components.errors import PedigreeError
from components.trust import intervals
from tests.drawing import draw_only

FILES = [f"{index}.png" for index in range(40)]
BINARY = Problem(["healthy", "ill"], positive="ill")
MANY = Problem(["ant", "bee", "cow"])
SEVERAL = Problem(["ant", "bee", "cow"], several=True)


def predictions(problem: Problem, threshold: float = 0.3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return predictions for 40 samples that are right more often than not."""
    random = torch.Generator().manual_seed(seed)
    classes = len(problem.classes)
    if problem.several:
        label = (torch.rand(40, classes, generator=random) < 0.4).to(torch.uint8)
        logits = label * 1.5 + torch.randn(40, classes, generator=random) - 1
    else:
        label = torch.arange(40) % classes
        logits = torch.randn(40, classes, generator=random)
        logits[torch.arange(40), label] += 1
    found = {"logits": logits, "label": label}
    if problem.several or problem.positive:
        found["threshold"] = torch.full((40, len(problem.judged)), threshold, dtype=torch.float64)
    return found


@pytest.mark.parametrize("problem", [BINARY, MANY, SEVERAL], ids=["binary", "many", "several"])
def test_outcomes_give_accuracy_and_auc(problem):
    given = predictions(problem)
    found = probabilities.outcomes(given, problem, FILES)
    probability, target = problem.probabilities(given["logits"]), problem.targets(given["label"])
    flagged = problem.flagged(given)
    expected = (flagged == target).double().mean()
    if problem is MANY:
        expected = (given["logits"].argmax(1) == given["label"]).double().mean()
    assert intervals.value(found, ACCURACY) == pytest.approx(float(expected))
    areas = [roc_auc_score(target[:, k], probability[:, k]) for k in range(target.shape[1])]
    assert intervals.value(found, AUC) == pytest.approx(np.mean(areas))
    metrics = probabilities.measure(found, given, problem)
    assert metrics["auc"] == pytest.approx(np.mean(areas))
    assert metrics["accuracy"] == pytest.approx(float(expected))
    if problem is not BINARY:
        assert metrics["auc/bee"] == pytest.approx(areas[1])
        assert set(found.groups["class"]) == set(problem.classes)


def test_the_means_over_several_labels_are_those_of_scikit_learn():
    given = predictions(SEVERAL)
    found = probabilities.measure(probabilities.outcomes(given, SEVERAL, FILES), given, SEVERAL)
    target, probability = given["label"].numpy(), given["logits"].double().sigmoid().numpy()
    flagged = probability >= 0.3
    assert found["auc"] == pytest.approx(roc_auc_score(target, probability, average="macro"))
    assert found["average_precision"] == pytest.approx(
        average_precision_score(target, probability, average="macro")
    )
    assert found["sensitivity"] == pytest.approx(recall_score(target, flagged, average="macro"))
    assert found["specificity"] == pytest.approx(recall_score(1 - target, ~flagged, average="macro"))
    assert found["accuracy"] == pytest.approx(1 - hamming_loss(target, flagged))


def test_with_two_classes_the_positive_one_decides_whichever_it_is():
    given = predictions(BINARY)
    ill = probabilities.measure(probabilities.outcomes(given, BINARY, FILES), given, BINARY)
    swapped = Problem(["ill", "healthy"], positive="ill")
    turned = given | {"logits": given["logits"].flip(1), "label": 1 - given["label"]}
    assert probabilities.measure(probabilities.outcomes(turned, swapped, FILES), turned, swapped) == pytest.approx(
        ill
    )
    healthy = Problem(["healthy", "ill"], positive="healthy")
    other = probabilities.measure(probabilities.outcomes(given, healthy, FILES), given, healthy)
    assert other["auc"] == pytest.approx(ill["auc"])
    assert other["average_precision"] != pytest.approx(ill["average_precision"])


def test_the_threshold_decides_sensitivity():
    metrics = []
    for threshold in (0.1, 0.9):
        given = predictions(BINARY, threshold)
        metrics.append(probabilities.measure(probabilities.outcomes(given, BINARY, FILES), given, BINARY))
    assert metrics[0]["sensitivity"] > metrics[1]["sensitivity"]
    assert metrics[0]["specificity"] < metrics[1]["specificity"]
    assert [each["threshold"] for each in metrics] == [0.1, 0.9]


def test_the_interval_of_sensitivity_is_that_of_a_share_of_the_positives():
    given = predictions(BINARY, threshold=0.0)  # everything is flagged
    low, high = intervals.interval(probabilities.outcomes(given, BINARY, FILES), SENSITIVITY)
    t = intervals.quantile(0.975, 19)
    assert (low, high) == (pytest.approx(1 / (1 + t**2 / 20)), 1)


def served(problem: Problem, given: dict[str, torch.Tensor]) -> list[dict]:
    if "threshold" in given:
        return decided(given["logits"], problem.classes, problem.index, given["threshold"][0])
    return answers(given["logits"], problem.classes, "label")


@pytest.mark.parametrize("problem", [BINARY, MANY, SEVERAL], ids=["binary", "many", "several"])
def test_served_answers_give_the_outcomes_of_evaluation(problem):
    given = predictions(problem)
    direct = probabilities.outcomes(given, problem, FILES)
    through = probabilities.outcomes_from(served(problem, given), given["label"], problem, FILES)
    assert through.columns.keys() == direct.columns.keys()
    for name, column in direct.columns.items():
        np.testing.assert_allclose(through.columns[name], column, atol=1e-12)


@pytest.mark.parametrize("problem", [BINARY, MANY, SEVERAL], ids=["binary", "many", "several"])
def test_a_rejected_sample_counts_as_wrong(problem):
    given = predictions(problem)
    found = probabilities.outcomes_from([Rejected("no image")] * 40, given["label"], problem, FILES)
    assert intervals.value(found, AUC) == 0
    assert intervals.value(found, ACCURACY) == 0


def test_answers_of_another_kind_of_model_are_named():
    label = predictions(BINARY)["label"]
    with pytest.raises(PedigreeError, match="no column 'probabilities' but text"):
        probabilities.outcomes_from([{"text": "?"}] * 40, label, BINARY, FILES)
    answer = {"label": "ill", "probabilities": {"sick": 1.0}}
    with pytest.raises(PedigreeError, match="no probability of 'ill'"):
        probabilities.outcomes_from([answer] * 40, label, BINARY, FILES)


def test_a_diverged_training_is_an_error():
    given = predictions(BINARY)
    given["logits"][3] = torch.nan
    with pytest.raises(PedigreeError, match="for 1 of 40 test samples are not finite"):
        probabilities.outcomes(given, BINARY, FILES)


@pytest.mark.parametrize("problem", [BINARY, MANY], ids=["binary", "many"])
def test_the_curves_are_drawn(tmp_path, problem):
    given = predictions(problem)
    probabilities.plot(probabilities.outcomes(given, problem, FILES), problem, tmp_path, "composed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precision_recall.png", "roc.png"]


def test_the_report_on_several_labels_has_metrics_tables_and_mistakes(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    for folder in ("plots", "examples"):
        (tmp_path / folder).mkdir()
    given = predictions(SEVERAL)
    samples = Samples(SEVERAL.classes, FILES, lambda index: np.zeros((8, 8), np.uint8), "image", "")
    metrics = labels.evaluate(given, samples, probabilities.outcomes(given, SEVERAL, FILES), tmp_path)
    flagged, target = SEVERAL.flagged(given), given["label"] > 0
    assert metrics["exact_match"] == pytest.approx(float((flagged == target).all(1).double().mean()))
    assert metrics["accuracy"] == pytest.approx(float((flagged == target).double().mean()))
    assert {"loss", "auc", "auc/ant", "threshold/cow", "sensitivity/bee"} <= metrics.keys()
    with (tmp_path / "examples/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["actual"].count("|") + bool(row["actual"]) for row in rows] == target.sum(1).tolist()
    worst = json.loads((tmp_path / "examples/mistakes.json").read_text())
    assert len(worst) == int((flagged != target).any(1).sum())
    assert all(row["actual"] != row["predicted"] for row in worst)
