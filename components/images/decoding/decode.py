"""An image file's bytes -> uint8 pixels of a fixed size, or the reason why the file is unusable.

Preparation and served models call the same `decode`, so that they see the same pixels.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageFile, TiffImagePlugin, UnidentifiedImageError, features

from components.datasets.ingest import Unusable
from components.images.decoding import dicom, jpeg
from components.images.decoding.formats import unread

__all__ = ["Unusable", "decode", "native", "opened", "peek"]

AVIF = ("AVIF",) if "avif" in features.modules and features.check("avif") else ()
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", *AVIF)
"""Formats that Pillow decodes by itself (MPO is part of JPEG); EPS, for example, would be passed to Ghostscript."""
REDUCING_GAP = 3.0
"""Large images are first reduced by integer factors, to no less than this many times the final size."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation (Exif 2.32, table 6)."""
JPEGS = ("JPEG", "MPO")
DAMAGED = "damaged: the compressed data do not fit the picture's size"
LEVELS = 16
"""Values of 8 bits that are all among this many of 256 at either end were not scaled, as those of masks of 0 and 1.

At native size, the darkest of the 71,000 pictures of MNIST, CIFAR-10, BCCD, nuclei (Data Science Bowl
2018), PneumoniaMNIST and BreastMNIST reaches 63, and the brightest has a pixel below 186.
"""
DARK = LEVELS << 8
"""Grey values of 16 bits below this are those of a camera of fewer bits."""
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


def decode(data: bytes, size: int, channels: int, max_megapixels: float) -> NDArray[np.uint8]:
    """Return the first image in a file's bytes as pixels (C, H, W), H = W = size.

    The image is turned by its EXIF orientation, composed onto white if it is transparent, and converted to
    grey (ITU-R 601 luma) or RGB; then its central square is resized (bicubic, antialiased). 16-bit grey is divided
    by 257. An alpha of 0 everywhere is no transparency, but what programs without alpha write. CMYK in a JPEG is
    inverted if Adobe's marker is there, which is how Photoshop stores it. A DICOM file is read as `dicom.picture`
    says.

    Raises:
        Unusable: the bytes are not an image, are damaged, have bands of unknown meaning, have more than
            `max_megapixels` million pixels, are nearly black or white (`LEVELS`), or become pixels of one single
            colour. Damage inside the data of a JPEG is found by the length of the data, so not always.
    """
    if dicom.is_dicom(data):
        return _pixels(dicom.picture(data, max_megapixels), size, channels)
    with opened(_nonempty(data), max_megapixels) as image:
        # JPEG can skip detail that the resize would average away, which decodes large photos several times faster.
        image.draft(None, (int(size * REDUCING_GAP), int(size * REDUCING_GAP)))
        _load(image, data)
        return _pixels(_meant_alpha(_full_scale(_upright(_inks(image)), image)), size, channels)


def _pixels(whole: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    """Return the central square of a picture as pixels (C, H, W)."""
    square = _opaque(_central_square(whole))
    colours = _mode(square, "L" if channels == 1 else "RGB")
    # Colours are converted first, as Pillow resizes 1-bit and palette images by nearest neighbour.
    resized = colours.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
    pixels = np.array(resized)  # (H, W) or (H, W, C)
    _expect_content(pixels, whole, square, colours)
    return np.ascontiguousarray(pixels.reshape(size, size, channels).transpose(2, 0, 1))  # (C, H, W)


def native(
    data: bytes, channels: int, max_megapixels: float, annotated: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return the first image in a file's bytes as pixels (C, H, W) at its own size.

    It is turned and converted as in `decode`. Annotations may refer to the image as stored or as it is shown:
    `annotated`, the width and height that they give, decides whether an EXIF orientation is applied. Without them
    it is.

    Raises:
        Unusable: as in `decode`, or the image has another size than `annotated`.
    """
    with opened(_nonempty(data), max_megapixels) as image:
        _load(image, data)
        inks = _inks(image)
        turned = _upright(inks)
        if annotated and turned.size != annotated:
            if image.size != annotated:
                raise Unusable(
                    f"it has {turned.width} x {turned.height} pixels, but its annotation says "
                    f"{annotated[0]} x {annotated[1]}"
                )
            turned = inks
        whole = _meant_alpha(_full_scale(turned, image))
        colours = _mode(_opaque(whole), "L" if channels == 1 else "RGB")
        pixels = np.array(colours)
        _expect_content(pixels, whole, whole, colours)
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1))


def _nonempty(data: bytes) -> IO[bytes]:
    if not data:
        raise Unusable("zero bytes")
    return io.BytesIO(data)


def peek(path: Path, max_megapixels: float) -> tuple[bool, int]:
    """Return whether an image file is grey, and its shorter side in pixels, from its header and palette.

    Raises:
        Unusable: as in `decode`, as far as the header tells.
    """
    if not path.is_file():
        raise Unusable("not a file")  # opening a named pipe would block forever
    with path.open("rb") as file:
        beginning = file.read(dicom.HEAD)
        file.seek(0)
        if dicom.is_dicom(beginning):
            return dicom.peek(file, max_megapixels)
        with opened(file, max_megapixels) as image:
            return image.mode in GREY_MODES or (image.mode == "P" and _grey_palette(image)), min(image.size)


@contextmanager
def opened(file: IO[bytes], max_megapixels: float) -> Iterator[ImageFile.ImageFile]:
    """Open an image, check its size, and convert any exception into Unusable with a reason."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_pixels(image.size, max_megapixels)
            _check_bands(image)
            yield image
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow's own limit is above any max_megapixels; its error does not contain the size.
        raise Unusable(f"decompression bomb: the image is far over max_megapixels {max_megapixels:g}") from None
    except UnidentifiedImageError:
        raise Unusable(unread(file, FORMATS)) from None
    except Exception as error:  # damaged files cause all kinds of exceptions
        raise Unusable(_reason(error)) from error


def _check_pixels(shape: tuple[int, int], max_megapixels: float) -> None:
    width, height = shape
    if width * height > max_megapixels * 1e6:
        raise Unusable(f"decompression bomb: {width} x {height} pixels is over max_megapixels {max_megapixels:g}")


def _check_bands(image: Image.Image) -> None:
    """Reject a TIFF whose bands Pillow takes for what they may not be: near infrared for alpha, or no sign."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    if image.mode == "RGBA" and TiffImagePlugin.EXTRASAMPLES not in image.tag_v2:
        raise Unusable(
            "a TIFF of 4 bands, of which none is said to be alpha: store red, green and blue, or set ExtraSamples"
        )
    if image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT) == (2,) and image.mode == "L":
        raise Unusable("unreadable: signed grey values of 8 bits have no known range")


def _load(image: ImageFile.ImageFile, data: bytes) -> None:
    """Decode the pixels of a file's bytes; raise Unusable if a JPEG's pixels do not need its data exactly."""
    is_jpeg = image.format in JPEGS
    scan = jpeg.single_scan(data) if is_jpeg else None
    if scan is None:
        if is_jpeg and not jpeg.several_scans_fit(data):
            raise Unusable(DAMAGED)
        image.load()
        return
    image.fp = scan
    try:
        image.load()
    except OSError as error:
        if _reason(error) == "truncated":
            raise Unusable(DAMAGED) from error  # it has an end marker, so the file is not cut off
        raise
    if not scan.needed:
        raise Unusable(DAMAGED)


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0][:100]
    if isinstance(error, EOFError) or re.search("truncated|EOF", text, re.IGNORECASE):
        return "truncated"
    return f"unreadable: {text or type(error).__name__}"


def _grey_palette(image: Image.Image) -> bool:
    entries = np.reshape(image.getpalette("RGB") or [], (-1, 3))
    return bool((entries == entries[:, :1]).all())


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image by its orientation. Pillow's own function writes all tags anew, and fails at an odd one."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged tags cause all kinds of exceptions, and say nothing of the pixels
        return image
    if isinstance(orientation, tuple | bytes) and orientation:  # several values, or the type BYTE
        orientation = orientation[0]
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _inks(image: Image.Image) -> Image.Image:
    """Undo Pillow's inversion of a CMYK JPEG that lacks Adobe's marker: nothing says that it is inverted."""
    plain = image.format in JPEGS and image.mode == "CMYK" and "adobe" not in image.info
    return ImageChops.invert(image) if plain else image


def _full_scale(image: Image.Image, file: Image.Image) -> Image.Image:
    """Return an image of 16 bits with 0 as black and 65535 as white, whatever kind of TIFF it was read from.

    Pillow leaves 12 bits as they are, and turns only smaller numbers of bits where 0 is white.
    """
    if not isinstance(file, TiffImagePlugin.TiffImageFile) or image.mode != "I;16":
        return image
    bits = file.tag_v2[TiffImagePlugin.BITSPERSAMPLE][0]
    values = np.asarray(image).astype(np.uint32) * 65535 // (2**bits - 1)
    if file.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        values = 65535 - values
    return Image.fromarray(values.astype(np.uint16))


def _meant_alpha(image: Image.Image) -> Image.Image:
    """Return the image without its alpha if that is 0 everywhere."""
    if isinstance(image.info.get("transparency"), bytes):  # alpha by palette entry
        image = image.convert("RGBA")
    if image.mode not in ALPHA_MODES or image.getchannel(image.getbands()[-1]).getextrema()[1]:
        return image
    return image.convert("RGBA").convert("RGB")  # the former keeps the colours of a premultiplied alpha of 0


def _one_colour(pixels: NDArray[Any]) -> bool:
    """Whether all pixels (H, W) or (H, W, C) are equal; the first row tells of nearly all images that not."""
    return bool((pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all())


def _expect_content(
    pixels: NDArray[np.uint8], whole: Image.Image, square: Image.Image, colours: Image.Image
) -> None:
    """Reject pixels (H, W) or (H, W, C) that show nothing, given the images from which they were made, in turn."""
    if _one_colour(pixels):
        raise Unusable(_why_one_colour(whole, square, colours, pixels.shape[0]))
    if pixels.max() < LEVELS or pixels.min() >= 256 - LEVELS:
        _check_levels(whole, colours)


def _why_one_colour(whole: Image.Image, square: Image.Image, colours: Image.Image, size: int) -> str:
    """Return the reason, with what was done to an image that may have had several colours before."""
    several = not _one_colour(np.asarray(whole))
    done = {
        "transparent pixels are seen on white": whole.has_transparency_data and several,
        "only the central square is used": whole.size != square.size and several,
        "converted to grey": (square.mode, colours.mode) == ("RGB", "L") and not _one_colour(np.asarray(square)),
        f"resized to {size} x {size}": not _one_colour(np.asarray(colours)),
    }
    steps = ", ".join(step for step, was_done in done.items() if was_done)
    return "all pixels have one colour" + (f": {steps}" if steps else "")


def _check_levels(whole: Image.Image, colours: Image.Image) -> None:
    """Reject what is nearly black or white before it is resized, by which small stars in a dark sky go under."""
    pixels = np.asarray(colours)
    low, high = int(pixels.min()), int(pixels.max())
    if high < LEVELS:
        raise Unusable(f"nearly black: its values go from {low} to {high} of 255: multiply them")
    if low >= 256 - LEVELS:
        remedy = "multiply its alpha" if whole.has_transparency_data else "stretch them"
        raise Unusable(f"nearly white: its values go from {low} to {high} of 255: {remedy}")


def _central_square(image: Image.Image) -> Image.Image:
    """Crop to the central square; resizing first would blow up a strip of 1 x 60,000 pixels."""
    width, height = image.size
    if width == height:
        return image
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # convert would copy even in the same mode


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits per channel, composed onto white if it is transparent."""
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
    """Scale 16-bit grey to 8 bits: 65535 / 257 = 255. Pillow's own conversion clips at 255 instead."""
    values = np.asarray(image).astype(np.int32)  # (H, W)
    if values.min() < 0 or values.max() > 65535:
        raise Unusable("unreadable: grey values outside 0..65535 have no known range")
    values[values == image.info.get("transparency", -1)] = 65535
    if values.min() < values.max() < DARK:
        raise Unusable(
            f"nearly black: its grey values go up to {values.max():,} of 65,535: multiply them, or store 8 bits"
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
