"""What the header of an image file says, without decoding its pixels."""

import io
from typing import NamedTuple

from PIL import ExifTags, Image

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations in which width and height are swapped (Exif 2.32, table 6)."""


class Header(NamedTuple):
    """Properties of an image file that Pillow can read."""

    mode: str
    """Pillow's name of the pixels' format, such as RGB, L or CMYK."""
    size: tuple[int, int]
    """Width and height as stored."""
    orientation: int
    """EXIF orientation; 1 if there is none, or one without meaning."""

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the image as it is shown."""
        width, height = self.size
        return (height, width) if self.orientation in SIDEWAYS else (width, height)


def header(data: bytes) -> Header:
    """Return the header of an image that was decoded before, so that its format is known."""
    with Image.open(io.BytesIO(data)) as image:
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation)
        except Exception:  # damaged tags cause all kinds of exceptions, and say nothing of the pixels
            orientation = None
        meant = orientation if isinstance(orientation, int) and orientation in range(2, 9) else 1
        return Header(image.mode, image.size, meant)
