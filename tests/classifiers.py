"""What evaluation said of each test sample, and that a served classifier says the same."""

import csv
from pathlib import Path
from typing import Any

import pytest


def predictions(evaluation: Path) -> list[dict[str, str]]:
    """Return the rows of predictions.csv."""
    with (evaluation / "examples" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def compare(answers: list[dict[str, Any]], evaluation: Path, column: str) -> None:
    """Compare each answer's class, in `column`, and its probability with what evaluation predicted."""
    for answer, row in zip(answers, predictions(evaluation), strict=True):
        assert answer[column] == row["predicted"]
        assert answer["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)
