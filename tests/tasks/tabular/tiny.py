"""A tiny table of patients, and what the served model must answer about its rows."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import classifiers

_MODEL = {"network": "tabm", "members": 2, "size": 8, "layers": 1, "heads": 2, "dropout": 0, "embedding": 4}
SETTINGS = {
    "train": {
        "workers": 0,
        "epochs": 3,
        "batch_size": 16,
        "optimizer": {"lr": 2.0e-2},
        "patience": 0,
        "model": _MODEL,
    },
    "register": {"gate": {"at_least": {"auc": 0}, "beats": [], "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
VARIANTS = {
    "tabm": {"train": {"model": {"dropout": 0.1}, "label_smoothing": 0.1}},
    "attention": {"train": {"model": {"network": "ft_transformer", "dropout": 0.1}}},
    "quantity": {"prepare": {"target": "age", "problem": "regression", "positive": ""}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""
COLUMNS = ("age", "weight", "sex", "town", "admitted", "outcome")
TOWNS = ("Ulm", "Bonn", "Kiel")


def rows(count: int = 160, seed: int = 0) -> list[list[str]]:
    """Return patients, the older of whom are more often ill; some have no weight."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        age = drawn.randint(20, 80)
        ill = drawn.random() < (age - 10) / 80
        weight = "" if drawn.random() < 0.2 else f"{drawn.uniform(50, 100):.1f}"
        day = f"2025-{drawn.randint(1, 12):02d}-{drawn.randint(1, 28):02d}"
        outcome = "ill" if ill else "well"
        found.append([str(age), weight, drawn.choice("fm"), drawn.choice(TOWNS), day, outcome])
    return found


def write_csv(
    file: Path, own: Sequence[Sequence[str]], header: Sequence[str] = COLUMNS, delimiter: str = ","
) -> None:
    """Write a table."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, delimiter=delimiter).writerows([header, *own])


def write(folder: Path) -> None:
    """Write a table, from which preparation draws the splits, and what it is."""
    write_csv(folder / "patients.csv", rows())
    (folder / "README.txt").write_text("Composed patients.\n")


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the test rows, with numbers as numbers."""
    own = rows()
    places = [int(row["file"].removeprefix("patients.csv:")) - 2 for row in classifiers.predictions(evaluation)]
    found = []
    for place in places:
        row: dict[str, Any] = dict(zip(COLUMNS[:-1], own[place], strict=False))
        row["age"] = float(row["age"])
        row["weight"] = float(row["weight"]) if row["weight"] else None
        found.append(row)
    return found, {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare labels and probabilities with those of evaluation."""
    classifiers.compare(answers, evaluation, "label")
    for answer in answers:
        assert answer["probabilities"].keys() == {"ill", "well"}
        assert answer["threshold"] == 1 / 6
        assert not answer["unseen"]
