"""A tiny set of images, and what the served generator must answer about it."""

import base64
import csv
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.tasks.image_classification import tiny

SETTINGS = {
    "prepare": {"classifier_updates": 4},
    "train": {
        "workers": 0,
        "epochs": 2,
        "batch_size": 16,
        "precision": "fp32",
        "model": {"width": 8},
    },
    "evaluate": {"sampling": {"sampler": "euler", "steps": 2}},
    "register": {"gate": {"at_least": {"accuracy": 0}, "at_most": {"frechet_ratio": 1e9}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
VARIANTS = {"flipped": {"train": {"flip": True}}}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""


def write(folder: Path) -> None:
    """Write real digits as PNG files."""
    tiny.write(folder)


def samples(evaluation: Path) -> list[dict[str, str]]:
    """Return the rows of samples.csv."""
    with (evaluation / "examples" / "samples.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a request's row for each sample, and no settings."""
    return [{"class": row["class"], "seed": int(row["number"])} for row in samples(evaluation)], {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare each answer's pixels with those of the evaluation."""
    for answer, row in zip(answers, samples(evaluation), strict=True):
        (image,) = answer["images"]
        file = base64.b64decode(image) if isinstance(image, str) else image
        pixels = np.array(Image.open(io.BytesIO(file)))  # grey
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == row["pixels_sha256"]
