"""A tiny set of images of several sizes, with masks, and what the served model must answer about them."""

import base64
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SETTINGS = {
    "train": {
        "workers": 0,
        "epochs": 2,
        "batch_size": 8,
        "precision": "fp32",
        "crop": 48,
        "model": {"width": 0.125, "decoder": 16},
    },
    "evaluate": {"boundary_tolerance": 0.05},
    "register": {"gate": {"at_least": {"miou": 0}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
VARIANTS = {
    "dice": {
        "train": {
            "loss": {"class_weights": "median_frequency", "dice": 1.0},
            "augment": {"flip": True, "turns": True, "scale": 2.0},
        }
    },
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""
SIZES = ((48, 56), (64, 48), (50, 61))


def write(folder: Path, train: int = 24, val: int = 5, test: int = 13) -> None:
    """Write squares and discs on noise as PNG files, and masks with a rim that has no class, 255."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val), ("test", test)):
        for number in range(count):
            pixels, mask = scene(random, *SIZES[number % len(SIZES)])
            for kind, values in (("images", pixels), ("masks", mask)):
                file = folder / split / kind / f"{number:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(file)


def scene(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (H, W, 3) of a square and a disc, and its mask (H, W)."""
    pixels = random.integers(0, 96, (height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for label, colour in ((1, (220, 60, 60)), (2, (60, 60, 220))):
        y, x, radius = random.integers(12, height - 12), random.integers(12, width - 12), random.integers(6, 11)
        distance = np.maximum(abs(rows - y), abs(columns - x)) if label == 1 else np.hypot(rows - y, columns - x)
        pixels[distance < radius] = colour
        mask[distance < radius + 1] = 255
        mask[distance < radius] = label
    return pixels, mask


def predictions(evaluation: Path) -> list[dict[str, str]]:
    """Return the rows of predictions.csv."""
    with (evaluation / "examples" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a request's row for each test sample, and no settings."""
    return [{"image": (raw / row["file"]).read_bytes()} for row in predictions(evaluation)], {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare the areas in each answer, and in its mask, with what evaluation predicted."""
    for answer, row in zip(answers, predictions(evaluation), strict=True):
        mask = answer["mask"]  # over HTTP in base64
        file = base64.b64decode(mask) if isinstance(mask, str) else mask
        with Image.open(io.BytesIO(file)) as image:
            counts = np.bincount(np.asarray(image).ravel(), minlength=3)
        for name, count in zip(answer["classes"], counts, strict=True):
            assert answer["areas"][name] == pytest.approx(float(row[f"area {name}"]), abs=1e-12)
            assert count / counts.sum() == pytest.approx(answer["areas"][name])
