"""A composed data set: patches of one photograph of a retina, half of which get a synthetic lesion.

The photograph is of a healthy left eye, by Mikael Häggström (Medical gallery of Mikael Häggström 2014, WikiJournal
of Medicine 1 (2)), licence CC0 1.0. Its field of view is divided into square regions, each with its own patches,
and a region is in one split: no pixel is in two. A region stands for a patient. Lesions are soft bright or dark
spots, many so faint that they cannot be distinguished from the texture around them.
"""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.datasets.raw_files import COMPOSED

NOTICE = """\
These images are composed. Each is a part of one photograph of a healthy retina (by Mikael Haeggstroem, licence CC0
1.0, in scikit-image), and half of them have a synthetic spot. They show that everything works; about disease they
say nothing.
"""
REGION, PATCH = 120, 32
"""Sides in pixels of a region and of a patch, both squares."""
PATCHES = 40
"""Patches of each region, half of them with a lesion."""
DARK = 12
"""Green values of the black surroundings of the field of view are below this."""
SPLITS = ("train", "train", "test", "train", "val", "train", "train", "test")
"""The splits of consecutive regions, repeated."""
RADIUS = (2.5, 5.0)
"""Smallest and largest radius of a lesion along an axis, in pixels."""
CONTRAST = (9.0, 32.0)
"""Smallest and largest change of the green value in a lesion's centre."""

Floats = NDArray[np.float64]


def compose(photograph: Path, folder: Path) -> None:
    """Write folder/manifest.csv, folder/images/<region>_<number>.bmp and a notice.

    Pixels are grey: the photograph's green, in which a retina has most contrast. Only sums, products and square
    roots are computed, whose results are the same on every machine; BMP is not compressed.

    Args:
        photograph: The photograph, 1411 x 1411 pixels in RGB.
        folder: An empty folder.
    """
    with Image.open(photograph) as image:
        green = np.asarray(image)[:, :, 1]
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    rows = []
    for number, (top, left) in enumerate(_regions(green)):
        region = green[top : top + REGION, left : left + REGION]
        for index in range(PATCHES):
            y, x = random.integers(REGION - PATCH + 1, size=2)
            patch, has_lesion = region[y : y + PATCH, x : x + PATCH], index % 2 == 0
            pixels = _with_lesion(patch, random) if has_lesion else patch
            file = f"images/{number:03d}_{index:02d}.bmp"
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / file)
            label = "lesion" if has_lesion else "healthy"
            rows.append((file, label, f"region {number}", SPLITS[number % len(SPLITS)]))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file_:
        table = csv.writer(file_, lineterminator="\n")
        table.writerow(("path", "label", "patient", "split"))
        table.writerows(rows)
    (folder / COMPOSED).write_text(NOTICE, encoding="utf-8")


def _regions(green: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return the top left corners of the regions that are inside the field of view."""
    corners = [range(0, side - REGION + 1, REGION) for side in green.shape]
    return [
        (top, left)
        for top in corners[0]
        for left in corners[1]
        if green[top : top + REGION, left : left + REGION].min() >= DARK
    ]


def _with_lesion(patch: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a patch with a soft elliptical spot of random place, size, direction and contrast."""
    middle = random.uniform(RADIUS[1], PATCH - RADIUS[1], 2)
    long, short = np.sort(random.uniform(*RADIUS, 2))[::-1]
    slope = random.uniform(-2, 2)
    sign = 1.0 if random.integers(2) else -1.0
    contrast = sign * random.uniform(*CONTRAST)
    rows = np.arange(PATCH)[:, None] - middle[0]
    columns = np.arange(PATCH)[None, :] - middle[1]
    length = np.sqrt(1 + slope * slope)
    along, across = (columns + slope * rows) / length, (rows - slope * columns) / length
    distance = (along / long) * (along / long) + (across / short) * (across / short)
    inside: Floats = np.maximum(1 - distance / 2, 0)
    values = patch + contrast * inside * inside
    changed: NDArray[np.uint8] = np.rint(values.clip(0, 255)).astype(np.uint8)
    return changed
