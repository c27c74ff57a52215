"""Evaluation of a detector: its files, its metrics, and the gate's view of them."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from components.contracts import Manifest
from components.images.measures import average_precision, coco_eval
from components.tasks.object_detection import baseline, evaluate
from components.tasks.object_detection.evaluate import Found
from components.tasks.object_detection.prepare import load_images
from components.trust import intervals
from tests.images.formats import write_coco
from tests.images.test_annotations import picture
from tests.tasks.object_detection.values import facts, prepared


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
    assert outcomes.groups["class"] == ["a", "b", "a", "b", "a", "b", "b"]
    assert intervals.value(outcomes, evaluate.SCORE) == pytest.approx((1 + 51 / 101 * 0.5) / 2, abs=1e-6)


def test_without_an_image_the_score_is_that_of_the_others():
    outcomes = evaluate._outcomes(IMAGES, CLASSES, FILES)
    weights = (outcomes.row_samples != 0).astype(float)
    others = evaluate._outcomes(IMAGES[1:], CLASSES, FILES[1:])
    alone = intervals.value(others, evaluate.SCORE)
    assert average_precision.mean(outcomes.columns, weights) == pytest.approx(alone)


def test_average_precision_at_half_has_an_interval_for_all_classes_and_for_each():
    outcomes = evaluate._outcomes(IMAGES, CLASSES, FILES)
    manifest = Manifest(task="object_detection", splits={}, rejected=[], facts=facts(classes=CLASSES))
    scores = evaluate.further_scores(manifest)
    metrics = coco_eval.metrics([(each.boxes, each.score, each.label, each.true) for each in IMAGES], CLASSES)
    assert [each.name for each in scores] == ["map50", "map50/a", "map50/b"]
    for each in scores:
        low, high = intervals.interval(outcomes, each)
        assert low <= metrics[each.name] <= high
        assert low < high, "also of a class that is always found"
        assert intervals.value(outcomes, each) == pytest.approx(metrics[each.name], abs=1e-6)


def test_the_baseline_finds_the_median_box_of_each_class_in_every_image(tmp_path):
    for name, size in (("large", (80, 60)), ("small", (40, 30))):
        picture(tmp_path / "raw/train", f"{name}.png", size)
    write_coco(tmp_path / "raw", {"train/large.png": [(8, 12, 40, 20)], "train/small.png": [(6, 4, 20, 10)]})
    document = json.loads((tmp_path / "raw/annotations/instances_train.json").read_text())
    document["images"][0] |= {"width": 80, "height": 60}
    (tmp_path / "raw/annotations/instances_train.json").write_text(json.dumps(document))
    for split, box in (("val", (0, 0, 9, 9)), ("test", (5, 5, 20, 10))):
        names = {f"{split}/{name}.png": [box] for name in "ab"}
        for name in names:
            picture(tmp_path / "raw", name)
        write_coco(tmp_path / "raw", names, f"instances_{split}.json")
    done = prepared(tmp_path / "raw", tmp_path / "out")
    train, val, test = (load_images(done.folder, split) for split in ("train", "val", "test"))
    assert baseline.map50(train, test) == pytest.approx(1), "(4, 6) and (6, 4) have the median (5, 5)"
    assert baseline.map50(train, val) == 0


def test_the_worst_mistakes_are_the_largest_missed_objects_and_the_surest_false_detections():
    missed, false = evaluate._mistakes(IMAGES, np.array([0.1, 0.1]))
    assert [(each.index, each.label) for each in missed] == [(0, 1)]
    assert [(each.index, each.value) for each in false] == [(0, 0.8), (1, 0.2)]
    assert [each.index for each in evaluate._mistakes(IMAGES, np.array([0.5, 0.5]))[1]] == [0]
    assert [each.index for each in evaluate._mistakes(IMAGES, np.array([0.1, 0.9]))[1]] == [1]


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
    assert {"count_error", "map75", "baseline_map50", "map50_low", "map50_high/1"} <= metrics.keys()
    assert chain.prepared.manifest.note == "composed scenes"
