import numpy as np
import pytest

from components.images.measures.boundaries import boundary_f1


def square(left: int, void: bool = False) -> np.ndarray:
    """Labels with a square of class 1 (label 2) of 20 pixels in background (label 1)."""
    labels = np.ones((40, 60), np.uint8)
    labels[10:30, left : left + 20] = 2
    if void:
        labels[:, :15] = 0
    return labels


def test_equal_maps_have_an_f1_of_one_and_a_class_that_is_in_neither_has_none():
    found = boundary_f1(square(10), square(10) - np.uint8(1), 3, 2)
    assert found[:2].tolist() == [1, 1]
    assert np.isnan(found[2])


def test_contours_agree_up_to_the_tolerance_and_not_beyond():
    predicted = square(13) - np.uint8(1)
    assert boundary_f1(square(10), predicted, 2, 3)[1] == 1
    lower = boundary_f1(square(10), predicted, 2, 2.9)[1]
    assert 0.4 < lower < 0.8, "the upper and lower sides agree, and the left and right ones do not"


def test_a_class_that_is_only_in_one_map_has_zero():
    assert boundary_f1(square(10), np.zeros((40, 60), np.uint8), 2, 2).tolist() == [0, 0]


def test_neither_the_border_of_the_image_nor_pixels_without_a_class_are_contours():
    whole = np.full((20, 20), 2, np.uint8)
    assert np.isnan(boundary_f1(whole, whole - np.uint8(1), 2, 1)).all()
    whole[:, :10] = 0
    predicted = np.zeros((40, 60), np.uint8)
    predicted[10:30, 3:30] = 1
    assert boundary_f1(square(10, void=True), predicted, 2, 1).tolist() == [1, 1]


def test_a_narrow_strip_without_a_class_goes_to_the_classes_beside_it():
    truth = square(10)
    truth[8:32, 8:32] = 0
    truth[12:28, 12:28] = 2
    assert boundary_f1(truth, square(10) - np.uint8(1), 2, 2).tolist() == [1, 1]
    assert np.isnan(boundary_f1(truth, square(10) - np.uint8(1), 2, 0.9)).all(), "the strip is too wide"


@pytest.mark.parametrize("tolerance", [1, 2, 5])
def test_the_distance_is_euclidean(tolerance):
    truth, predicted = np.ones((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    truth[20, 20] = 2
    predicted[20 + tolerance, 20 + tolerance] = 1
    assert boundary_f1(truth, predicted, 2, tolerance)[1] == 0
    assert boundary_f1(truth, predicted, 2, tolerance * 2**0.5)[1] == 1
