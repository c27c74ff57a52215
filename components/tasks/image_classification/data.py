"""Data sets of images: lesions from a Python package, and CIFAR-10 from the internet."""

import pickle
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.datasets.download import download
from components.errors import PedigreeError
from components.images.embedded.lesions import compose

LARGEST = 100_000_000
"""Maximum bytes of a file of CIFAR-10's archive, of which the largest has 31 million."""


def lesions(folder: Path) -> None:
    """Write patches of a photograph of a retina, half of them with a synthetic lesion: see
    `components.images.embedded.lesions`.

    Raises:
        PedigreeError: scikit-image, which carries the photograph, is not installed.
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise PedigreeError(
            "scikit-image, which carries the photograph for the embedded lesions, is not installed: install it "
            "with `uv pip install 'pedigree[demo]'`, or put your own images and a manifest in data/lesions/"
        )
    compose(Path(spec.origin).parent / "data" / "retina.jpg", folder)  # without importing the package


def cifar10(folder: Path, cache: Path) -> None:
    """Write CIFAR-10 as folder/{train,test}/<class>/<index>.png, 50,000 and 10,000, 32 x 32, RGB.

    The archive is downloaded into `cache` unless it is already there. Source: Krizhevsky, Learning multiple layers
    of features from tiny images, 2009.

    Raises:
        PedigreeError: the archive cannot be downloaded, or differs from the published one.
    """
    from torchvision.datasets import CIFAR10  # type: ignore[import-untyped]

    archive = cache / CIFAR10.filename
    download("CIFAR-10", CIFAR10.url, archive, CIFAR10.tgz_md5)
    convert_cifar10(archive, folder)


def convert_cifar10(archive: Path, folder: Path) -> None:
    """Write the images of an archive in the format of cifar-10-python.tar.gz.

    Raises:
        PedigreeError: a batch is missing, or is not a file of at most 100 MB; or a class is not a word.
        pickle.UnpicklingError: a batch contains anything but plain values and arrays.
    """
    from torchvision.datasets import CIFAR10

    with tarfile.open(archive, "r:gz") as tar:
        names: list[str] = _load(archive, tar, CIFAR10.meta["filename"])[CIFAR10.meta["key"]]
        if not all(name.isalpha() for name in names):  # they become folders
            raise PedigreeError(
                f"{archive} has classes that are not words: it is not CIFAR-10: remove it and try again"
            )
        for split, batches in (("train", CIFAR10.train_list), ("test", CIFAR10.test_list)):
            index = 0
            for file, _ in batches:
                batch = _load(archive, tar, file)
                images = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, H, W, C)
                for image, label in zip(images, batch["labels"], strict=True):
                    _save(image, folder / split / names[label] / f"{index:05d}.png")
                    index += 1


def _save(image: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _load(archive: Path, tar: tarfile.TarFile, file: str) -> Any:
    from torchvision.datasets import CIFAR10

    name = f"{CIFAR10.base_folder}/{file}"
    member = tar.getmember(name) if name in tar.getnames() else None
    opened = tar.extractfile(member) if member and member.isreg() and member.size <= LARGEST else None
    if opened is None:
        raise PedigreeError(
            f"{archive}: {name} is missing, or is not a file of at most {LARGEST:,} bytes: it is not CIFAR-10: "
            "remove it and try again"
        )
    return _ArrayUnpickler(opened, encoding="latin1").load()  # Python 2 wrote the batches


class _ArrayUnpickler(pickle.Unpickler):
    """Loads only plain values and NumPy arrays, so that a pickle cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in {"ndarray", "dtype"}:
            return getattr(np, name)
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):  # its module when the batches were written
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
