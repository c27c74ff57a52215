"""Label maps made visible: a colour for each class, as the palette of a PNG or over the image."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.images import drawing

BACKGROUND = "background"
"""Name of the class that is not coloured."""
OPACITY = 0.55
BORDER = 16
"""Grey level of pixels without a class."""


def palette_of(classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return a colour for each class, (K, 3); that of a first one called background is black."""
    first = int(classes[0] == BACKGROUND)
    rest = [drawing.colour(number) for number in range(len(classes) - first)]
    return np.array([(0, 0, 0)] * first + rest, np.uint8)


def blended(image: NDArray[np.uint8], labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) tinted by its labels (H, W), an index or, without a class, one beyond the palette.

    Pixels of a black class keep their colours.
    """
    whole = np.vstack([palette, np.full((1, 3), BORDER, np.uint8)])
    tint = whole[np.minimum(labels, len(palette))].astype(np.float64)
    opacity = np.where(tint.any(2, keepdims=True), OPACITY, 0.0)
    mixed: NDArray[np.uint8] = np.round(image * (1 - opacity) + tint * opacity).astype(np.uint8)
    return mixed


def png(labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Return labels (H, W) as a PNG with a palette, whose indices are the labels."""
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
