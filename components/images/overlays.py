"""Label maps made visible: a colour for each class, as the palette of a PNG or over the image."""

import colorsys
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BACKGROUND = "background"
"""Name of the class that is not coloured."""
GOLDEN = 0.61803398875
"""Share of the circle of hues between two classes: the next one is always far from the last ones."""
OPACITY = 0.55
BORDER = 16
"""Grey level of pixels without a class."""


def colours(classes: int, background: bool) -> NDArray[np.uint8]:
    """Return a colour for each class, (K, 3); the first is black if it is the background."""
    hues = [(index * GOLDEN) % 1 for index in range(classes)]
    values = [colorsys.hsv_to_rgb(hue, 0.85 if n % 2 else 0.6, 1 if n % 3 else 0.8) for n, hue in enumerate(hues)]
    found: NDArray[np.uint8] = np.round(255 * np.array(values)).astype(np.uint8)
    if background:
        found = np.roll(found, 1, 0)
        found[0] = 0
    return found


def palette_of(classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return `colours` for classes, of which the first may be called background."""
    return colours(len(classes), classes[0] == BACKGROUND)


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
