"""A tiny set of composed scenes, and what the served model must answer about it."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from components.images.embedded.scenes import write_scenes

_MODEL = {"width": 0.125, "neck": 16}
SETTINGS = {
    "train": {"workers": 0, "epochs": 3, "batch_size": 8, "precision": "fp32", "model": _MODEL},
    "register": {"gate": {"at_least": {"map50": 0}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
VARIANTS = {
    "turned": {
        "train": {"augment": {"flip": True, "flip_vertical": True, "turn": True, "scale": 1.5, "colour": 0.3}}
    }
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""


def write(folder: Path, counts: dict[str, int] | None = None) -> None:
    """Write some composed scenes."""
    write_scenes(folder, counts or {"train": 24, "val": 11, "test": 13})


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a request's row for each test image, and the least score."""
    return [{"image": (raw / file).read_bytes()} for file in _detections(evaluation)], {"threshold": 0.0}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare each answer with what evaluation predicted."""
    expected = _detections(evaluation)
    assert len(answers) == len(expected)
    for answer, rows in zip(answers, expected.values(), strict=True):
        assert [each["label"] for each in answer["boxes"]] == [row["label"] for row in rows]
        for each, row in zip(answer["boxes"], rows, strict=True):
            for name in ("x", "y", "width", "height"):
                assert each[name] == pytest.approx(float(row[name]), abs=0.02)
            assert each["score"] == pytest.approx(float(row["score"]), abs=1e-5)


def _detections(evaluation: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of detections of each test image that has rows at all, in the order of the split."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (evaluation / "examples" / "detections.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["file"]] += [row] if row["kind"] == "detected" else []
    return found
