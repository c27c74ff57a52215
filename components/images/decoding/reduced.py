"""Images and label maps made smaller."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def limited(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Return an image whose longer side has at most `longest` pixels, resized bilinearly with antialiasing.

    Args:
        pixels: (H, W, 3); returned as it is if it is small enough.
        longest: Most pixels of a side.
    """
    height, width = pixels.shape[:2]
    if max(height, width) <= longest:
        return pixels
    ratio = longest / max(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def nearest(labels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return labels (H, W) resized to (height, width): each pixel has the label at its centre (nearest-exact)."""
    rows = (2 * np.arange(height) + 1) * labels.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * labels.shape[1] // (2 * width)
    return np.ascontiguousarray(labels[rows[:, None], columns])
