"""Tiny texts about three things, and what the served model must answer about them."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import classifiers

_MODEL = {
    "network": "cnn",
    "size": 16,
    "filters": 8,
    "layers": 1,
    "heads": 2,
    "dropout": 0,
    "bert": {"layers": 1, "hidden": 16, "heads": 2, "intermediate": 16, "positions": 32},
}
SETTINGS = {
    "prepare": {"longest": 16, "tokenizer": {"name": "word", "vocabulary": 200}},
    "train": {
        "workers": 0,
        "epochs": 3,
        "batch_size": 8,
        "precision": "fp32",
        "optimizer": {"name": "adamw", "lr": 3.0e-2},
        "model": _MODEL,
    },
    "register": {"gate": {"at_least": {"accuracy": 0}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
VARIANTS = {
    "plain": {"train": {"model": {"dropout": 0.1}, "class_weights": "balanced"}},
    "lstm": {"train": {"model": {"network": "lstm", "layers": 2}}},
    "transformer": {"train": {"model": {"network": "transformer"}, "optimizer": {"name": "muon"}}},
    "bert": {"train": {"model": {"network": "bert"}, "init": {"layer_decay": 0.9}}},
    "several": {"prepare": {"separator": "|"}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""

THINGS = {
    "fruit": ("apple", "pear", "plum", "peach"),
    "animal": ("cat", "dog", "horse", "fox"),
    "tool": ("hammer", "saw", "drill", "file"),
}
OTHERS = ("the", "a", "big", "small", "red", "old", "on", "under", "table")


def rows(count: int = 120, seed: int = 0) -> list[tuple[str, str]]:
    """Return different texts of 2 to 7 words with one thing each, and what it is."""
    drawn = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        label = drawn.choice([*THINGS])
        words = drawn.choices(OTHERS, k=drawn.randint(1, 6))
        words.insert(drawn.randint(0, len(words)), drawn.choice(THINGS[label]))
        found[" ".join(words)] = label
    return list(found.items())


def write_csv(file: Path, texts: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")) -> None:
    """Write a table."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([header, *texts])


def write(folder: Path) -> None:
    """Write a table, from which preparation draws the splits, and what it is."""
    write_csv(folder / "things.csv", rows())
    (folder / "README.txt").write_text("Texts about fruit, animals and tools.\n")


def texts_of(raw: Path, evaluation: Path) -> list[str]:
    """Return the test texts, in the order of the predictions."""
    with (raw / "things.csv").open(newline="", encoding="utf-8") as file:
        lines = [row["text"] for row in csv.DictReader(file)]
    places = [int(row["file"].removeprefix("things.csv:")) for row in classifiers.predictions(evaluation)]
    return [lines[place - 2] for place in places]


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the test texts, each with white space around it."""
    return [{"text": f" {text}\n"} for text in texts_of(raw, evaluation)], {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare labels and probabilities with those of evaluation."""
    classifiers.compare(answers, evaluation, "label")
    for answer in answers:
        assert answer["probabilities"].keys() == {*THINGS}
        assert answer["probability"] == answer["probabilities"][answer["label"]]
        assert answer["note"] == ""
