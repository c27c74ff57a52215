"""Boxes drawn on images."""

import colorsys
import io
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""
SMALLEST, LARGEST = 11, 40
"""Limits of the height of letters in pixels."""


def colour(number: int) -> tuple[int, int, int]:
    """Return a colour for the class of a number; neighbouring numbers have colours far apart."""
    hue = number * 0.381966 % 1  # the golden ratio's part divides a circle most evenly
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1)
    return round(255 * red), round(255 * green), round(255 * blue)


def colour_of(name: str) -> tuple[int, int, int]:
    """Return the colour of a class by its name, the same in all images."""
    return colour(zlib.crc32(name.encode()))


def drawn(
    image: Image.Image, boxes: Sequence[Box], texts: Sequence[str], colours: Sequence[tuple[int, int, int]]
) -> Image.Image:
    """Return a copy of an RGB image with boxes, each with a text above it or, at the top, in it."""
    image = image.convert("RGB")
    pen = ImageDraw.Draw(image)
    side = max(image.size)
    line = max(1, side // 250)
    font = ImageFont.load_default(min(max(side // 30, SMALLEST), LARGEST))
    for box, paint in zip(boxes, colours, strict=True):
        left, top, right, bottom = box
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=paint, width=line)
    for box, text, paint in zip(boxes, texts, colours, strict=True):
        if text:
            _, _, wide, high = pen.textbbox((0, 0), text, font=font)
            x = min(max(box[0], 0), max(image.width - wide - 2, 0))
            y = box[1] - high - 2 if box[1] - high - 2 >= 0 else box[1]
            pen.rectangle((x, y, x + wide + 2, y + high + 2), fill=paint)
            pen.text((x + 1, y + 1), text, fill="black", font=font)
    return image


def cut(
    pixels: NDArray[np.uint8], box: Box, around: float = 0.75, least: int = 48
) -> tuple[NDArray[np.uint8], Box]:
    """Return the square part of an image (H, W, 3) around a box, and the box in it.

    Args:
        pixels: The image.
        box: The box.
        around: What is shown on each side, as a share of the box's longer side.
        least: Least side of the part in pixels, if the image is that large.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    side = max((1 + 2 * around) * max(right - left, bottom - top), least)
    wide, high = (int(min(side, limit)) for limit in (width, height))
    x = int(min(max((left + right - wide) / 2, 0), width - wide))
    y = int(min(max((top + bottom - high) / 2, 0), height - high))
    return pixels[y : y + high, x : x + wide], (left - x, top - y, right - x, bottom - y)


def png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
