import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from components.tasks.image_generation.distances import frechet, nearest, normal, precision_recall


def rows(seed, count=200, dimensions=5, shift=0.0):
    generator = np.random.default_rng(seed)
    return generator.normal(shift, 1, (count, dimensions)) @ generator.normal(0, 1, (dimensions, dimensions))


def test_the_distance_is_that_of_the_formula_with_a_matrix_root():
    first, second = normal(rows(0)), normal(rows(1, 150, shift=0.5))
    root = sqrtm(first.covariance @ second.covariance).real
    expected = ((first.mean - second.mean) ** 2).sum() + np.trace(first.covariance + second.covariance - 2 * root)
    assert frechet(first, second) == pytest.approx(expected)
    assert frechet(second, first) == pytest.approx(expected)


def test_equal_sets_have_no_distance_and_shifted_ones_the_square_of_the_shift():
    assert frechet(normal(rows(0)), normal(rows(0))) == pytest.approx(0, abs=1e-9)
    assert frechet(normal(rows(0)), normal(rows(0) + 2)) == pytest.approx(4 * 5)


def test_a_row_of_weight_two_is_two_rows_and_without_weight_there_is_no_distance():
    few, weights = rows(0, 30), np.arange(30) % 3
    twice = normal(few, weights.astype(float))
    assert frechet(twice, normal(np.repeat(few, weights, axis=0))) == pytest.approx(0, abs=1e-9)
    assert math.isnan(frechet(normal(few, np.zeros(30)), twice))
    assert frechet(normal(few[:1]), normal(few[1:2])) == pytest.approx(((few[0] - few[1]) ** 2).sum())


def test_precision_is_lost_by_samples_elsewhere_and_recall_by_samples_of_one_kind():
    real = rows(0, 300, 2)
    assert precision_recall(real, real) == (1.0, 1.0)
    elsewhere = np.concatenate([real[:150], real[150:] + 1000])
    precision, recall = precision_recall(real, elsewhere)
    assert precision == 0.5
    assert recall > 0.5
    one_kind = real[0] + 0.01 * rows(1, 300, 2)
    precision, recall = precision_recall(real, one_kind)
    assert precision > 0.9
    assert recall < 0.1


def test_the_nearest_image_is_found_in_any_block():
    points, others = rows(0, 450, 3), rows(1, 500, 3)
    squares = ((points[:, None] - others) ** 2).sum(2)
    distance, which = nearest(points, others)
    np.testing.assert_allclose(distance, squares.min(1), atol=1e-9)
    assert which.tolist() == squares.argmin(1).tolist()
