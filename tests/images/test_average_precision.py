"""COCO's average precision: by this project from weighted rows, and by faster-coco-eval."""

import numpy as np
import pytest
import torch

from components.images import box_targets
from components.images.measures import average_precision, coco_eval

NAMES = ["a", "b", "c"]


def random_images(seed: int, count: int = 12, crowds: bool = True):
    """Return detections near true boxes and elsewhere, some with equal scores."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        number = int(random.integers(0, 9))
        corner, size = random.uniform(0, 100, (number, 2)), random.uniform(5, 120, (number, 2))
        crowd = (random.random(number) < 0.2) & crowds
        label = random.integers(0, 2, number)
        true = np.column_stack([corner, corner + size, label, crowd])
        near = np.repeat(true, 2, axis=0)
        shifted = near[:, :4] + random.normal(0, 6, (len(near), 4))
        other = random.uniform(0, 100, (6, 2))
        boxes = np.vstack([shifted, np.column_stack([other, other + random.uniform(5, 90, (6, 2))])])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = np.append(near[:, 4], random.integers(0, 3, 6)).astype(np.int64)
        images.append((boxes, random.random(len(boxes)).round(2), labels, true))
    return images


def columns_of(images):
    tables = [average_precision.table(each[:3], each[3]) for each in images]
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def ones(columns):
    return np.ones(len(columns["score"]))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_faster_coco_eval_in_total_and_by_class_with_crowds(seed):
    images = random_images(seed)
    expected = coco_eval.metrics(images, NAMES)
    columns = columns_of(images)
    assert average_precision.mean(columns, ones(columns)) == pytest.approx(expected["map"], abs=1e-9)
    for label, values in average_precision.of_classes(columns, ones(columns)).items():
        assert values.mean() == pytest.approx(expected[f"map/{NAMES[label]}"], abs=1e-9)
        assert values[0] == pytest.approx(expected[f"map50/{NAMES[label]}"], abs=1e-9)
    assert "map/c" not in expected, "no image has such an object"


@pytest.mark.parametrize("seed", range(3))
def test_what_validation_judges_on_the_device_is_the_same_at_one_threshold(seed):
    for found, score, label, true in random_images(seed):
        columns = average_precision.table((found, score, label), true)
        order = np.argsort(-score, kind="stable")
        tensors = [torch.from_numpy(each[order])[None] for each in (found, score, label)]
        right, wrong = box_targets.judged(
            box_targets.Detections(*tensors), torch.from_numpy(true)[None], torch.tensor([len(true)]), 0.5
        )
        by_class = np.argsort(label[order], kind="stable")
        assert right[0][by_class].tolist() == columns["hit"][: len(score), 0].astype(bool).tolist()
        assert wrong[0][by_class].tolist() == columns["wrong"][: len(score), 0].astype(bool).tolist()


def test_an_image_of_weight_two_counts_like_two_images():
    images = random_images(7)
    weight_of = np.arange(len(images)) % 3
    columns = columns_of(images)
    sizes = [len(average_precision.table(each[:3], each[3])["score"]) for each in images]
    weights = np.repeat(weight_of, sizes).astype(float)
    repeated = [each for each, times in zip(images, weight_of, strict=True) for _ in range(times)]
    assert average_precision.mean(columns, weights) == pytest.approx(
        coco_eval.metrics(repeated, NAMES)["map"], abs=1e-9
    )


def test_a_detection_that_matches_only_a_crowd_is_neither_right_nor_wrong():
    true = np.array([[0, 0, 50, 50, 0, 1.0], [60, 60, 80, 80, 0, 0]])
    boxes = np.array([[5, 5, 20, 20.0], [10, 10, 30, 30], [60, 60, 80, 80]])
    columns = average_precision.table((boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, np.int64)), true)
    assert columns["hit"][:, 0].tolist() == [0, 0, 1, 0]
    assert columns["wrong"][:, 0].tolist() == [0, 0, 0, 0]
    assert columns["true"].tolist() == [0, 0, 0, 1]
    assert average_precision.mean(columns, np.ones(4)) == 1


def test_without_detections_all_metrics_are_zero_and_without_objects_there_is_none():
    true = np.array([[0, 0, 50, 50, 1, 0.0]])
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    assert coco_eval.metrics([(*nothing, true)], NAMES) == dict.fromkeys(
        ("map", "map50", "map75", "map/b", "map50/b"), 0
    )
    columns = average_precision.table(nothing, true)
    assert average_precision.mean(columns, ones(columns)) == 0
    empty = average_precision.table(nothing, true[:0])
    assert np.isnan(average_precision.mean(empty, ones(empty)))


def test_at_most_a_hundred_detections_of_an_image_count():
    boxes = np.tile([0, 0, 10, 10.0], (150, 1))
    columns = average_precision.table(
        (boxes, np.linspace(0, 1, 150), np.zeros(150, np.int64)), boxes[:0].repeat(2, 1)[:, :6]
    )
    assert len(columns["score"]) == 100
    assert columns["score"].min() == pytest.approx(50 / 149)


def test_map_by_size_follows_the_area_of_the_true_box():
    sizes = {"small": 20, "medium": 60, "large": 120}
    images = []
    for side in sizes.values():
        true = np.array([[10, 10, 10 + side, 10 + side, 0, 0.0]])
        right = side != 60
        boxes = true[:, :4] + (0 if right else 1000)
        images.append((boxes, np.array([0.9]), np.zeros(1, np.int64), true))
    found = coco_eval.metrics(images, NAMES)
    assert (found["map_small"], found["map_medium"], found["map_large"]) == (1, 0, 1)
