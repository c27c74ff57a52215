"""Images in one npz file in the form of MedMNIST: arrays train_images, train_labels, and likewise val and test.

Source: Yang et al. 2023, MedMNIST v2, doi 10.1038/s41597-022-01721-8.
"""

from __future__ import annotations

import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from components.datasets import raw_files
from components.datasets.raw_files import SPLITS
from components.errors import PedigreeError
from components.images.labels import image_lists
from components.images.labels.image_lists import Entry, Listing
from components.params import FilesPrepareParams

IMAGES, LABELS = "images", "labels"
LARGEST = 2**33
"""Largest array in bytes, which is read into memory as a whole."""


def archives(raw: Path) -> list[str]:
    """Return the npz files in the raw folder."""
    return sorted(
        name for name, is_folder in raw_files.visible(raw) if not is_folder and name.lower().endswith(".npz")
    )


def survey(raw: Path, name: str, options: FilesPrepareParams) -> Listing:
    """Divide the images of the file into splits: those that it has, and those that it lacks drawn from train.

    An image is named `<split>/<index>`. Labels are numbers, which are the names of the classes, (N,) or (N, 1);
    with several columns (N, K) of 0 and 1, each is a class of which an image may have any number, named by its
    index.

    Args:
        raw: The raw folder.
        name: The file's name.
        options: The shares and the seed.

    Raises:
        PedigreeError: the file is damaged, holds Python objects, or lacks an array; its arrays are not images and
            labels; or as `image_lists.divide` does.
    """
    file = raw / name
    names = _keys(file)
    labels = {split: _labels(file, split) for split in SPLITS if names & {f"{split}_{IMAGES}", f"{split}_{LABELS}"}}
    if "train" not in labels:
        raise PedigreeError(
            f"{file} has no train_{IMAGES} and train_{LABELS}, as MedMNIST's files do: it has "
            f"{raw_files.listed(sorted(names)) or 'no arrays'}"
        )
    columns = {rows.shape[1] for rows in labels.values()}
    if len(columns) > 1:
        raise PedigreeError(f"{file}: the labels of the splits have different numbers of columns: make them equal")
    several = columns != {1}
    if several and any(((rows != 0) & (rows != 1)).any() for rows in labels.values()):
        raise PedigreeError(f"{file}: labels in several columns must be 0 or 1: correct them")
    entries = [
        Entry(f"{split}/{index:07d}", _names(row, several), "", split, f"{name} {split}[{index}]")
        for split, rows in labels.items()
        for index, row in enumerate(rows.tolist())
    ]
    ignored = [other for other, _ in raw_files.visible(raw) if other != name and other not in raw_files.about(raw)]
    return image_lists.divide(raw, entries, several, options, {}, ignored, key=lambda label: (int(label), label))


def _names(row: list[int], several: bool) -> tuple[str, ...]:
    return tuple(str(index) for index, value in enumerate(row) if value) if several else (str(row[0]),)


def contents(raw: Path, name: str, image: str) -> bytes:
    """Return an image of the file as an uncompressed PNG, as a request to the served model sends it.

    Args:
        raw: The raw folder.
        name: The file's name.
        image: Its name, `<split>/<index>`.
    """
    split, _, index = image.partition("/")
    pixels = _images(raw / name, split)[int(index)]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def peek(raw: Path, name: str, image: str) -> tuple[bool, int]:
    """Return whether an image is grey, and its shorter side in pixels."""
    pixels = _images(raw / name, image.partition("/")[0])[0]
    return pixels.ndim == 2, min(pixels.shape[:2])


def _keys(file: Path) -> set[str]:
    """Return the names of the arrays.

    Raises:
        PedigreeError: the file is no archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return {each.filename.removesuffix(".npy") for each in archive.infolist()}
    except (zipfile.BadZipFile, OSError):
        raise PedigreeError(f"{file} is not an npz file, or is damaged: get another copy") from None


@lru_cache(maxsize=len(SPLITS))  # read image by image, and decompressed as a whole
def _images(file: Path, split: str) -> NDArray[np.uint8]:
    """Return the images (N, H, W) or (N, H, W, 3) of a split."""
    images = _array(file, f"{split}_{IMAGES}")
    return images[..., 0] if images.shape[3:] == (1,) else images


def _labels(file: Path, split: str) -> NDArray[np.int64]:
    """Return the labels of a split, (N, K)."""
    name, pixels = f"{split}_{LABELS}", f"{split}_{IMAGES}"
    for one, other in ((name, pixels), (pixels, name)):
        if one not in _keys(file):
            raise PedigreeError(f"{file} has {other} but no {one}: add it")
    labels, (images, dtype) = _array(file, name), _described(file, pixels)
    if dtype != np.uint8 or len(images) not in (3, 4) or images[3:] not in ((), (1,), (3,)) or 0 in images[1:]:
        raise PedigreeError(
            f"{file}: {pixels} is {dtype} {images}: store images as uint8 (N, H, W) or (N, H, W, 3)"
        )
    if (
        labels.dtype.kind not in "iub"
        or labels.ndim not in (1, 2)
        or labels.shape[:1] != images[:1]
        or labels.size == 0
    ):
        raise PedigreeError(
            f"{file}: {name} is {labels.dtype} {labels.shape} beside {images[0]:,} images: store a whole "
            "number for each image, or a row of 0 and 1"
        )
    return labels.reshape(len(labels), -1).astype(np.int64)


def _described(file: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return an array's shape and type, from its header."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(stream)
    except Exception:  # damaged headers cause all kinds
        raise PedigreeError(f"{file}: the array {name} is damaged: get another copy of the file") from None
    return shape, dtype


def _array(file: Path, name: str) -> NDArray[Any]:
    """Return an array, unless it is too large or holds Python objects, which could run code.

    Raises:
        PedigreeError: it does, or it is damaged.
    """
    shape, dtype = _described(file, name)
    if dtype.hasobject:
        raise PedigreeError(
            f"{file}: the array {name} holds Python objects, which are not loaded because they could run code: "
            "store numbers alone"
        )
    if (size := int(np.prod(shape, dtype=object)) * dtype.itemsize) > LARGEST:
        raise PedigreeError(f"{file}: the array {name} takes {size / 1e9:.1f} GB: divide it into files of images")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found: NDArray[Any] = arrays[name]
    except Exception as error:  # damaged data cause all kinds
        raise PedigreeError(
            f"{file}: the array {name} is damaged ({error}): get another copy of the file"
        ) from None
    return found
