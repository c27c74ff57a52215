"""Outcomes, score and figures of a segmentation."""

import csv

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_f1_score, multiclass_jaccard_index

from components.contracts import Rejected
from components.images import mask_overlays
from components.tasks.segmentation import TASK
from components.tasks.segmentation.evaluate import WORST, evaluate, mean_iou, outcomes, outcomes_from
from components.tasks.segmentation.prepare import MASK, load_split
from components.tasks.segmentation.train import confusion
from components.trust import intervals
from tests.tasks.segmentation.test_prepare import binary
from tests.tasks.segmentation.tiny import write
from tests.tasks.segmentation.values import prepared, values


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    write(folder / "raw")
    return prepared(folder, prepare={"classes": ["background", "square", "disc"]})


def predictions(done, wrong: float = 0.3, classes: int = 3):
    """Batches of predictions of which a share is wrong; they are at most as large as a batch."""
    torch.manual_seed(0)
    split = load_split(done.folder, "test")
    for indices in torch.arange(len(split)).split(4):
        batch = split.__getitems__(indices)
        right = (batch[MASK].long() - 1).clamp(min=0)
        label = torch.where(torch.rand(right.shape) < wrong, torch.randint(classes, right.shape), right)
        counts = [confusion(mask.long() - 1, each, classes) for mask, each in zip(batch[MASK], label, strict=True)]
        yield {"label": label.to(torch.uint8), "confusion": torch.stack(counts).int()}


def joined(done):
    """The true and predicted classes of all labelled pixels."""
    pairs = [], []
    split, number = load_split(done.folder, "test"), 0
    for batch in predictions(done):
        for label in batch["label"]:
            target = split.ragged[MASK][number].long() - 1
            pairs[0].append(target.flatten())
            pairs[1].append(label[: target.shape[0], : target.shape[1]].flatten().long())
            number += 1
    return [torch.cat(each) for each in pairs]


@pytest.fixture(scope="module")
def evaluated(done, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    for name in ("plots", "examples"):
        (out / name).mkdir()
    return out, evaluate(torch.nn.Identity(), predictions(done), done, out, values())


def test_the_score_is_the_mean_iou_of_all_pixels_together(done, evaluated):
    target, predicted = joined(done)
    expected = float(multiclass_jaccard_index(predicted, target, 3, ignore_index=-1, average="macro"))
    found = outcomes(predictions(done), done, values())
    assert intervals.value(found, TASK.score(done.manifest)) == pytest.approx(expected)
    assert evaluated[1]["miou"] == pytest.approx(expected)
    each = multiclass_jaccard_index(predicted, target, 3, ignore_index=-1, average="none").tolist()
    by_class = intervals.group_values(found, TASK.score(done.manifest), "class")
    assert by_class == pytest.approx(dict(zip(("background", "square", "disc"), each, strict=True)))
    assert {name: evaluated[1][f"iou/{name}"] for name in by_class} == pytest.approx(by_class)


def test_the_score_without_an_image_is_that_of_the_others(done):
    found = outcomes(predictions(done), done, values())
    kept = (found.row_samples != 2).astype(float)
    others = {name: column[kept > 0] for name, column in found.columns.items()}
    assert mean_iou(found.columns, kept) == pytest.approx(mean_iou(others, np.ones(int(kept.sum()))))
    low, high = intervals.interval(found, TASK.score(done.manifest))
    assert low < mean_iou(found.columns, np.ones(len(kept))) < high


def test_the_iou_of_each_class_has_an_interval(done, evaluated):
    found, scores = outcomes(predictions(done), done, values()), TASK.further_scores(done.manifest)
    assert [each.name for each in scores] == ["iou/background", "iou/square", "iou/disc"]
    for each in scores:
        low, high = intervals.interval(found, each)
        assert low < intervals.value(found, each) < high
        assert evaluated[1][each.name] == pytest.approx(intervals.value(found, each))


def test_the_interval_of_the_score_is_as_wide_as_images_differ_and_not_as_that_of_as_many_answers(done):
    found, score = outcomes(predictions(done), done, values()), TASK.score(done.manifest)
    low, high = intervals.interval(found, score)
    assert high - low == pytest.approx(np.ptp(intervals.estimate(found, score).interval), rel=0.05)
    assert 0 <= low <= high <= 1


def test_the_map_of_the_most_frequent_class_stands_beside_the_score(done, evaluated):
    target, _ = joined(done)
    share = float((target == 0).sum() / (target >= 0).sum())
    assert evaluated[1]["baseline_miou"] == pytest.approx(share / 3)


def test_a_perfect_map_has_only_ones(done, tmp_path):
    for name in ("plots", "examples"):
        (tmp_path / name).mkdir()
    found = evaluate(torch.nn.Identity(), predictions(done, 0), done, tmp_path, values())
    baseline = found.pop("baseline_miou")
    assert baseline < 0.4
    assert all(value == 1 for name, value in found.items() if "boundary" not in name)
    assert found["boundary_f1"] > 0.98, "at the rims, which have no class, there is no perfect contour"


def test_binary_masks_have_the_dice_of_the_foreground(tmp_path):
    binary(tmp_path / "raw")
    done = prepared(tmp_path)
    for name in ("plots", "examples"):
        (tmp_path / name).mkdir()
    found = evaluate(torch.nn.Identity(), predictions(done, classes=2), done, tmp_path, values())
    target, predicted = joined_binary(done)
    assert found["dice"] == pytest.approx(float(binary_f1_score(predicted, target)))


def joined_binary(done):
    split, number, pairs = load_split(done.folder, "test"), 0, ([], [])
    for batch in predictions(done, classes=2):
        for label in batch["label"]:
            target = split.ragged[MASK][number] - 1
            pairs[0].append(target.flatten())
            pairs[1].append(label[: target.shape[0], : target.shape[1]].flatten())
            number += 1
    return [torch.cat(each) for each in pairs]


def test_each_image_has_a_row_with_its_areas(evaluated):
    with (evaluated[0] / "examples/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    assert all(
        sum(float(row[f"area {name}"]) for name in ("background", "square", "disc")) == pytest.approx(1)
        for row in rows
    )
    assert min(float(row["miou"]) for row in rows) < max(float(row["miou"]) for row in rows)


def test_the_figures_are_written(evaluated):
    assert {file.name for file in evaluated[0].rglob("*.png")} == {"confusion.png", "per_class.png", "worst.png"}
    assert WORST < 13


def test_a_served_versions_answers_are_compared_by_the_names_of_their_classes(done):
    palette = mask_overlays.palette_of(["background", "square", "disc"])
    order = ["disc", "background", "square"]
    to_other = np.array([1, 2, 0], np.uint8)
    answers, number = [], 0
    split = load_split(done.folder, "test")
    for batch in predictions(done):
        for label in batch["label"].numpy():
            height, width = split.ragged[MASK].shapes[number].tolist()
            answers.append({"mask": mask_overlays.png(to_other[label[:height, :width]], palette), "classes": order})
            number += 1
    expected, found = outcomes(predictions(done), done, values()), outcomes_from(answers, done)
    for name, column in expected.columns.items():
        assert np.array_equal(found.columns[name], column)
    rejected = outcomes_from([Rejected("no"), *answers[1:]], done)
    own = rejected.row_samples == 0
    assert rejected.columns["intersection"][own].sum() == 0
    assert rejected.columns["union"][own].sum() == (split.ragged[MASK][0] > 0).sum()
