"""Boundary F1: how well the contours of a segmentation agree (Csurka et al. 2013, BMVC, "What is a good evaluation
measure for semantic segmentation?", section 3).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int64]  # (N, 2), rows and columns


def boundary_f1(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int, tolerance: float
) -> NDArray[np.float64]:
    """Return the F1 of each class's contour in one image; NaN for a class without a contour in either map.

    A pixel is on the contour of its class if one beside it, above or below has another class. Precision is the
    share of the predicted contour within a distance of the true one, recall that of the true one near that.
    The border of the image is no contour, and neither is that of pixels without a class; but strips of them up to
    twice the tolerance wide, such as the borders of objects in Pascal VOC, go to the classes beside them.

    Args:
        truth: True class of each pixel, (H, W), plus 1; 0 for pixels without one, which do not count.
        predicted: Predicted class of each pixel, (H, W), from 0.
        classes: K.
        tolerance: Distance in pixels up to which contours agree.

    Returns:
        (K,).
    """
    filled = _filled(truth, tolerance)
    maps = filled - 1, np.where(filled > 0, predicted.astype(np.int64), -1)
    true, found = (_contours(each, classes) for each in maps)
    scores = np.full(classes, np.nan)
    for index, (one, other) in enumerate(zip(true, found, strict=True)):
        if len(one) and len(other):
            precision, recall = _near(other, one, tolerance), _near(one, other, tolerance)
            scores[index] = 2 * precision * recall / max(precision + recall, 1e-12)
        elif len(one) or len(other):
            scores[index] = 0
    return scores


def _filled(truth: NDArray[np.uint8], tolerance: float) -> NDArray[np.int64]:
    """Return labels (H, W) in which pixels without a class have that of the nearest pixel within the tolerance."""
    labels = truth.astype(np.int64)
    if (truth > 0).all() or not truth.any():
        return labels
    from scipy.ndimage import distance_transform_edt  # takes a moment

    distances, nearest = distance_transform_edt(truth == 0, return_indices=True)
    return np.where(distances <= tolerance, labels[tuple(nearest)], 0)


def _contours(labels: NDArray[np.int64], classes: int) -> Sequence[Points]:
    """Return the contour of each class of a map (H, W), in which -1 is no class."""
    on = np.zeros(labels.shape, bool)
    for one, other in (
        ((slice(None, -1),), (slice(1, None),)),
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ):
        differ = (labels[one] != labels[other]) & (labels[one] >= 0) & (labels[other] >= 0)
        on[one] |= differ
        on[other] |= differ
    points = np.argwhere(on)
    of = labels[on]
    return [points[of == index] for index in range(classes)]


def _near(points: Points, others: Points, tolerance: float) -> float:
    """Return the share of points within a distance of the nearest of the others."""
    from scipy.spatial import cKDTree  # takes a moment

    distances, _ = cKDTree(others).query(points, distance_upper_bound=tolerance * (1 + 1e-9))
    return float(np.isfinite(distances).mean())
