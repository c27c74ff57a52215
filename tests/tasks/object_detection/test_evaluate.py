"""Evaluation of a detector: its files, its metrics, and the gate's view of them."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from components.images import average_precision
from components.tasks.object_detection import evaluate
from components.tasks.object_detection.evaluate import Found
from components.trust import intervals


def found(*true, boxes=(), score=(), label=()):
    return Found(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(score, np.float64),
        np.array(label, np.int64),
        np.array(true, np.float64).reshape(-1, 6),
    )


SMALL, LARGE = (0, 0, 10, 10, 0, 0), (20, 20, 60, 60, 1, 0)
IMAGES = [
    found(SMALL, LARGE, boxes=[SMALL[:4], (100, 100, 120, 120)], score=[0.9, 0.8], label=[0, 1]),
    found(LARGE, boxes=[LARGE[:4], (0, 0, 5, 5)], score=[0.7, 0.2], label=[1, 0]),
    found(),
]
CLASSES = ["a", "b"]
FILES = ["1.png", "2.png", "3.png"]


def test_outcomes_have_a_row_for_each_detection_and_object_and_none_for_an_empty_image():
    outcomes = evaluate._outcomes(IMAGES, CLASSES, FILES)
    assert outcomes.row_samples.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert outcomes.groups["class"] == ["a", "b", "a", "b", "b", "a", "b"]
    assert intervals.value(outcomes, evaluate.SCORE) == pytest.approx((1 + 51 / 101 * 0.5) / 2, abs=1e-6)


def test_without_an_image_the_score_is_that_of_the_others():
    outcomes = evaluate._outcomes(IMAGES, CLASSES, FILES)
    weights = (outcomes.row_samples != 0).astype(float)
    others = evaluate._outcomes(IMAGES[1:], CLASSES, FILES[1:])
    alone = intervals.value(others, evaluate.SCORE)
    assert average_precision.mean(outcomes.columns, weights) == pytest.approx(alone)


def test_the_worst_mistakes_are_the_largest_missed_objects_and_the_surest_false_detections():
    missed, false = evaluate._mistakes(IMAGES, 0.1)
    assert [(each.index, each.label) for each in missed] == [(0, 1)]
    assert [(each.index, each.value) for each in false] == [(0, 0.8), (1, 0.2)]
    assert [each.index for each in evaluate._mistakes(IMAGES, 0.5)[1]] == [0]


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_the_files_of_an_evaluation(chain_of):
    chain = chain_of("scenes")
    folder, metrics = chain.evaluated.folder, chain.evaluated.metrics
    assert {path.name for path in (folder / "plots").iterdir()} >= {"precision_recall.png", "counts.png"}
    with Image.open(folder / "examples" / "mistakes.png") as image:
        assert min(image.size) > 100
    rows = table(folder / "examples" / "detections.csv")
    true = sum(row["kind"] == "true" for row in rows)
    assert true == sum(chain.prepared.manifest.facts["counts"]["test"].values())
    kinds = {each["kind"] for each in json.loads((folder / "examples" / "mistakes.json").read_text())}
    assert kinds <= {"miss", "false detection"}
    counts = table(folder / "examples" / "counts.csv")
    assert sum(int(row["true"]) for row in counts) == true
    assert 0 <= metrics["map"] <= metrics["map50"] <= 1
    assert {"count_error", "map75"} <= metrics.keys()
    assert chain.prepared.manifest.note == "composed scenes"
