"""An image file's bytes -> uint8 pixels of one size, or the reason why not.

The served model calls the same `decode` as preparation, so that it sees what training saw.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from components.intake import Unusable

__all__ = ["Unusable", "decode", "peek"]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What Pillow decodes by itself (MPO comes with JPEG); EPS, for one, it would hand to Ghostscript."""
REDUCING_GAP = 3.0
"""Large images are first shrunk by whole factors, down to no less than this many times the final size."""
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


def decode(data: bytes, size: int, channels: int, max_megapixels: float) -> NDArray[np.uint8]:
    """Return the first image in a file's bytes as pixels (C, H, W), H = W = size.

    The image is turned as its EXIF tag says, put on white where it is transparent, made grey (ITU-R 601
    luma) or RGB, and its central square is resized (bicubic, antialiased). 16-bit grey is divided by 257.

    Raises:
        Unusable: the bytes are no image, are damaged, or hold more than `max_megapixels` million pixels.
    """
    if not data:
        raise Unusable("zero bytes")
    with _opened(io.BytesIO(data), max_megapixels) as image:
        # JPEG can leave out what the resize would average away: large photos decode several times faster.
        image.draft(None, (int(size * REDUCING_GAP), int(size * REDUCING_GAP)))
        ImageOps.exif_transpose(image, in_place=True)
        colours = _mode(_opaque(_central_square(image)), "L" if channels == 1 else "RGB")
        # Of 1-bit and palette images resize would take the nearest pixel only: so the colours come first.
        resized = colours.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
        pixels = np.array(resized)  # (H, W) or (H, W, C)
    return np.ascontiguousarray(pixels.reshape(size, size, channels).transpose(2, 0, 1))  # (C, H, W)


def peek(path: Path, max_megapixels: float) -> tuple[bool, int]:
    """Return whether a file is grey, and its shorter side in pixels, from its header (and palette).

    Raises:
        Unusable: as in `decode`.
    """
    if not path.is_file():
        raise Unusable("not a file")  # to open a named pipe would wait for ever
    with path.open("rb") as file, _opened(file, max_megapixels) as image:
        return image.mode in GREY_MODES or (image.mode == "P" and _grey_palette(image)), min(image.size)


@contextmanager
def _opened(file: IO[bytes], max_megapixels: float) -> Iterator[Image.Image]:
    """Open an image whose header is sound, and turn whatever then goes wrong into a reason."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_pixels(image.size, max_megapixels)
            yield image
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow's own limit is above any max_megapixels; its error keeps the size to itself.
        raise Unusable(f"decompression bomb: the image is far over max_megapixels {max_megapixels:g}") from None
    except UnidentifiedImageError:
        raise Unusable("not an image") from None
    except Exception as error:  # damaged data ends in nearly every exception there is
        raise Unusable(_reason(error)) from error


def _check_pixels(shape: tuple[int, int], max_megapixels: float) -> None:
    width, height = shape
    if width * height > max_megapixels * 1e6:
        raise Unusable(f"decompression bomb: {width} x {height} pixels is over max_megapixels {max_megapixels:g}")


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0][:100]
    if isinstance(error, EOFError) or re.search("truncated|EOF", text, re.IGNORECASE):
        return "truncated"
    return f"unreadable: {text or type(error).__name__}"


def _grey_palette(image: Image.Image) -> bool:
    entries = np.reshape(image.getpalette("RGB") or [], (-1, 3))
    return bool((entries == entries[:, :1]).all())


def _central_square(image: Image.Image) -> Image.Image:
    """Crop before the resize: a strip of 1 x 60,000 pixels would explode if it were resized first."""
    width, height = image.size
    if width == height:
        return image
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # convert copies even where nothing changes


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits a channel, put on white where it is transparent."""
    if image.mode == "F":
        raise Unusable("unreadable: floating-point pixels have no known range")
    if image.mode.startswith("I"):
        return _eight_bits(image)
    if not image.has_transparency_data:
        return image if image.mode in ("1", "L") else _mode(image, "RGB")  # every mode converts to RGB
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    white.alpha_composite(layer)
    return _mode(white, "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey: 65535 / 257 = 255. Pillow's own conversion clips at 255 instead."""
    values = np.asarray(image).astype(np.int32)  # (H, W)
    if values.min() < 0 or values.max() > 65535:
        raise Unusable("unreadable: grey values outside 0..65535 have no known range")
    values[values == image.info.get("transparency", -1)] = 65535
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
