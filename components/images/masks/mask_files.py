"""A mask file's bytes -> the class of each pixel, or the reason why the file is unusable.

A class is one more than its index, and 0 is a pixel without a class: the padding of a batch then has none either.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.datasets.ingest import Unusable
from components.datasets.raw_files import listed
from components.images.decoding.decode import opened

__all__ = ["Labels", "Table", "Unusable", "binary", "from_colours", "from_values", "labels", "merged", "values"]

Labels = NDArray[np.uint8]
"""The class of each pixel, (H, W): 0 is none, k + 1 is the class of index k."""
MOST = 255
"""Most classes that fit into `Labels`."""
VOID = 255
"""The value of pixels without a class in most data sets, such as the borders of objects in Pascal VOC."""
NUMBERS = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes whose pixels are one number: of a palette, the index."""
ALPHA = ("LA", "PA", "RGBA")
GREY_AS_RGB = "masks in RGB that are grey, read as numbers"
PALETTE = "masks with a palette, read by index"


@dataclass(frozen=True)
class Table:
    """The classes of a data set's masks."""

    classes: Sequence[str]
    """Their names by index."""
    numbers: Mapping[int, int]
    """A pixel's number, or index in a palette, to its label; empty if masks are read by their colours."""
    colours: Mapping[int, int]
    """A pixel's colour, 65536 red + 256 green + blue, to its label."""


def from_values(classes: Mapping[str, int], ignored: Iterable[int]) -> Table:
    """Return the table of classes that have numbers; `ignored` numbers are of no class."""
    numbers = dict.fromkeys(ignored, 0) | {value: index + 1 for index, value in enumerate(classes.values())}
    return Table(list(classes), numbers, {})


def from_colours(classes: Mapping[str, tuple[int, int, int]], ignored: Iterable[tuple[int, int, int]]) -> Table:
    """Return the table of classes that have colours; `ignored` colours are of no class."""
    colours = dict.fromkeys(map(packed, ignored), 0)
    colours |= {packed(colour): index + 1 for index, colour in enumerate(classes.values())}
    return Table(list(classes), {}, colours)


def packed(colour: tuple[int, int, int]) -> int:
    """Return a colour as one number."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def values(data: bytes, max_megapixels: float) -> list[int]:
    """Return the numbers that a mask has, in order.

    Raises:
        Unusable: as in `labels`, or the mask has colours.
    """
    with opened(io.BytesIO(data), max_megapixels) as image:
        numbers, _ = _numbers(image)
        return [int(each) for each in _unique(numbers)]


def labels(data: bytes, table: Table, max_megapixels: float) -> tuple[Labels, list[str]]:
    """Return the class of each pixel of a mask, and what of its format is to be counted.

    The number of a pixel is its index if the mask has a palette, and otherwise its grey value. A mask in RGB is
    read by the colours of the table; if it has none, all pixels have to be grey.

    Raises:
        Unusable: the bytes are no image, or have a number or colour that is of no class.
    """
    with opened(io.BytesIO(data), max_megapixels) as image:
        if table.colours and (image.mode not in NUMBERS or image.format == "GIF" or not table.numbers):
            return _mapped(_colours(image), table.colours, True, image), []
        numbers, cases = _numbers(image)
        return _mapped(numbers, table.numbers, False, image), cases


def binary(data: bytes, max_megapixels: float) -> NDArray[np.bool_]:
    """Return where the mask of one instance is not 0, bool (H, W).

    Raises:
        Unusable: the bytes are no image, or have several numbers besides 0.
    """
    with opened(io.BytesIO(data), max_megapixels) as image:
        numbers, _ = _numbers(image)
        found = _unique(numbers)
        if len(found) > 2 or (len(found) == 2 and found[0]):
            raise Unusable(
                f"the mask of one object has the values {_listed(found)} instead of 0 and one other{_lossy(image)}"
            )
        return numbers > 0


def merged(instances: Sequence[NDArray[np.bool_]]) -> Labels:
    """Return the labels of background, 1, and foreground, 2, the union of at least one instance (H, W).

    Raises:
        Unusable: their sizes differ.
    """
    if len(sizes := {each.shape for each in instances}) > 1:
        raise Unusable(
            f"its instances have masks of several sizes: {listed([_size(each) for each in sorted(sizes)])}"
        )
    return reduce(np.logical_or, instances).astype(np.uint8) + np.uint8(1)


def _numbers(image: Image.Image) -> tuple[NDArray[np.integer[Any]], list[str]]:
    """Return the number of each pixel, (H, W), and what is to be counted."""
    image.load()
    if image.format == "GIF":  # programs order its palette as they like, so that an index means nothing
        image = image.convert("RGB")
    if image.mode in NUMBERS:
        numbers = np.asarray(image)
        return numbers.astype(np.uint8) if image.mode == "1" else numbers, [PALETTE] * (image.mode == "P")
    _expect_opaque(image)
    if image.mode not in ("RGB", "RGBA", "LA"):
        raise Unusable(f"pixels of mode {image.mode} are no classes: store the mask as PNG, grey or with a palette")
    bands = np.asarray(image)  # (H, W, bands)
    if image.mode == "LA":
        return bands[..., 0], []
    if not (bands[..., :3] == bands[..., :1]).all():
        colours = _unique(_colours(image))
        raise Unusable(
            f"it has colours: set prepare.classes to the name and colour of each class, as in "
            f"{{road: [128, 64, 128]}}; the colours are {listed([_rgb(int(each)) for each in colours])}"
        )
    return bands[..., 0], [GREY_AS_RGB]


def _colours(image: Image.Image) -> NDArray[np.int64]:
    """Return the colour of each pixel as one number, (H, W)."""
    image.load()
    _expect_opaque(image)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise Unusable(f"pixels of mode {image.mode} have no colours of 8 bits: store the mask as PNG")
    bands = np.asarray(image.convert("RGB")).astype(np.int64)
    return bands[..., 0] << 16 | bands[..., 1] << 8 | bands[..., 2]


def _unique(pixels: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Return the values of pixels (H, W) in order; counting bytes is quicker than sorting them."""
    return np.flatnonzero(np.bincount(pixels.ravel())) if pixels.dtype == np.uint8 else np.unique(pixels)


def _expect_opaque(image: Image.Image) -> None:
    if image.mode in ALPHA and image.getchannel("A").getextrema()[0] != 255:
        raise Unusable("some of its pixels are transparent: store the classes without transparency")


def _mapped(
    pixels: NDArray[np.integer[Any]], table: Mapping[int, int], colours: bool, image: Image.Image
) -> Labels:
    """Return the label of each pixel's number or colour."""
    found = _unique(pixels)
    if unknown := [int(each) for each in found if int(each) not in table]:
        what = listed([_rgb(each) for each in unknown]) if colours else _listed(unknown)
        raise Unusable(f"{'colours' if colours else 'values'} outside the classes: {what}{_lossy(image)}")
    known = np.array([table[int(each)] for each in found], np.uint8)
    if pixels.dtype != np.uint8:
        by_rank: Labels = known[np.searchsorted(found, pixels)]
        return by_rank
    by_byte = np.zeros(256, np.uint8)
    by_byte[found] = known
    mapped: Labels = by_byte[pixels]
    return mapped


def _lossy(image: Image.Image) -> str:
    return "; JPEG changes the values of a mask: store it as PNG" if image.format in ("JPEG", "MPO") else ""


def _listed(numbers: Iterable[int] | NDArray[np.integer[Any]]) -> str:
    return listed([str(each) for each in numbers])


def _rgb(colour: int) -> str:
    return f"[{colour >> 16}, {colour >> 8 & 255}, {colour & 255}]"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
