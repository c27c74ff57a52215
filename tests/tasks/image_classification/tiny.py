"""A tiny set of images, and what the served model must answer about it."""

from pathlib import Path
from typing import Any

from PIL import Image

from components.images.embedded.digits import mnist
from tests.classifiers import compare, predictions

SETTINGS = {
    "train": {
        "workers": 0,
        "epochs": 3,
        "batch_size": 16,
        "precision": "fp32",
        "model": {"width": 0.125},
    },
    "register": {"gate": {"at_least": {"accuracy": 0}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
_WHITENED = {"network": "whitened", "mirror": True}
_SGD = {"name": "sgd", "lr": 0.01}
VARIANTS = {
    "plain": {},
    "mixup": {"train": {"model": _WHITENED, "augment": {"flip": "alternate", "mix": "mixup"}, "optimizer": _SGD}},
    "cutmix": {"train": {"model": _WHITENED, "augment": {"flip": True, "mix": "cutmix"}}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""


def write(folder: Path, train: int = 24, test: int = 13, classes: int = 4) -> None:
    """Write real digits as PNG files, a prime number of test images for each class."""
    images, labels = mnist()
    for label in range(classes):
        for number, pixels in enumerate(images[labels == label][: train + test]):
            file = folder / ("train" if number < train else "test") / str(label) / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a request's row for each test sample, and no settings."""
    return [{"image": (raw / row["file"]).read_bytes()} for row in predictions(evaluation)], {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare each answer with what evaluation predicted."""
    compare(answers, evaluation, "label")
