"""Objects counted in images."""

import numpy as np
import pytest

from components.images.measures.counting import Scored, count, metrics, thresholds


def image(scores, true):
    """Return an image with detections of the first of two classes and objects of it."""
    return Scored(np.array(scores), np.zeros(len(scores), np.int64), np.array([true, 0]))


def test_the_threshold_is_in_the_middle_of_those_that_count_best():
    images = [image([0.9, 0.8, 0.3, 0.1], 2), image([0.7, 0.4], 1)]
    (chosen, unused) = thresholds(images)
    assert chosen == pytest.approx(0.55, abs=0.02)
    assert unused == 0.5


def test_the_error_of_a_count_is_relative_to_the_mean_count_and_errors_of_images_do_not_cancel():
    images = [image([0.9, 0.9, 0.9], 2), image([0.9], 2), image([], 0)]
    counts = count(images, np.array([0.5, 0.5]))
    assert counts.true[:, 0].tolist() == [2, 2, 0]
    assert counts.counted[:, 0].tolist() == [3, 1, 0]
    assert metrics(counts, ["cell", "none"]) == {
        "count_error": pytest.approx(0.5),
        "count_error/cell": pytest.approx(0.5),
    }
