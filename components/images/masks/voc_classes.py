"""The classes of Pascal VOC's masks (Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/)."""

from components.images.masks.mask_files import VOID, Table, from_colours, from_values

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""A class's index in this list is that in the palette; VOID is the border of objects."""


def colour(index: int) -> tuple[int, int, int]:
    """Return a colour of VOC's palette: bits 0, 3 and 6 of the index are the highest of red, and so on."""
    red, green, blue = (sum((index >> 3 * step + band & 1) << 7 - step for step in range(3)) for band in range(3))
    return red, green, blue


_NUMBERS = from_values({name: index for index, name in enumerate(CLASSES)}, (VOID,))
_COLOURS = from_colours({name: colour(index) for index, name in enumerate(CLASSES)}, (colour(VOID),))
TABLE = Table(CLASSES, _NUMBERS.numbers, _COLOURS.colours)
"""Masks of VOC have a palette; some tools store its colours instead."""
