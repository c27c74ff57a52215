"""Tiny pairs in an invented language, and what the served model must answer about them."""

import csv
import random
from pathlib import Path
from typing import Any

import pytest

_MODEL = {"network": "transformer", "size": 32, "heads": 2, "inner": 32, "layers": 1, "dropout": 0}
SETTINGS = {
    "prepare": {"vocabulary": 300, "longest": 60, "source": "en", "target": "xx"},
    "train": {
        "workers": 0,
        "epochs": 2,
        "batch_size": 8,
        "precision": "fp32",
        "optimizer": {"name": "adamw", "lr": 1.0e-2},
        "model": _MODEL,
    },
    "evaluate": {"search": {"beam": 2}},
    "register": {"gate": {"at_least": {"bleu": 0}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
VARIANTS = {
    "plain": {"train": {"model": {"dropout": 0.1}, "optimizer": {"name": "muon"}}},
    "gru": {"train": {"model": {"network": "gru", "layers": 2}, "average": {"name": "mean", "start": 0.5}}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""

WORDS = {"one": "uno", "two": "du", "red": "ruj", "blue": "blu", "cat": "kat", "dog": "hund", "sees": "vid"}


def pairs(count: int = 120) -> list[tuple[str, str]]:
    """Return different texts of 1 to 5 words and their translations, word by word in the opposite order."""
    drawn = random.Random(0)
    found: dict[str, str] = {}
    while len(found) < count:
        text = drawn.choices([*WORDS], k=drawn.randint(1, 5))
        found[" ".join(text)] = " ".join(WORDS[word] for word in reversed(text))
    return list(found.items())


def write_parallel(folder: Path, split: str, texts: list[tuple[str, str]]) -> None:
    """Write <split>.en and <split>.xx."""
    for suffix, side in zip(("en", "xx"), zip(*texts, strict=True), strict=True):
        (folder / f"{split}.{suffix}").write_bytes("".join(f"{text}\n" for text in side).encode())


def write(folder: Path) -> None:
    """Write parallel files, from which preparation draws the splits, and what they are."""
    write_parallel(folder, "train", pairs())
    (folder / "README.txt").write_text("Texts in English and in an invented language.\n")


def table(evaluation: Path) -> list[dict[str, str]]:
    """Return the rows of translations.csv."""
    with (evaluation / "examples" / "translations.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the sources of the test split, each with white space around it."""
    return [{"text": f" {row['source']}\n"} for row in table(evaluation)], {"best": 2}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare the best translations and their scores with those of evaluation."""
    rows = table(evaluation)
    assert [answer["translation"] for answer in answers] == [row["translation"] for row in rows]
    scores = [float(row["score"]) for row in rows]
    assert [answer["score"] for answer in answers] == pytest.approx(scores, abs=1e-4)
    for answer in answers:
        best, second = answer["translations"]
        assert best == {"translation": answer["translation"], "score": answer["score"]}
        assert second["score"] <= best["score"]
