"""A tiny text, and what the served model must answer about it."""

import csv
import json
import statistics
from itertools import accumulate, cycle, islice, pairwise
from pathlib import Path
from typing import Any

import pytest

SETTINGS = {
    "prepare": {"tokenizer": {"name": "char"}, "val_share": 0.1, "test_share": 0.1},
    "train": {
        "workers": 0,
        "epochs": 2,
        "batch_size": 8,
        "precision": "fp32",
        "window": 32,
        "optimizer": {"name": "adamw"},
        "model": {"embedding": 32, "hidden": 32},
        "dropout": {"output": 0},
    },
    "register": {"gate": {"at_most": {"perplexity": 1e9}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
_AWD = {"embedding": 0.1, "input": 0.1, "hidden": 0.1, "output": 0.1, "weight": 0.1}
VARIANTS = {
    "plain": {},
    "gru": {"train": {"model": {"cell": "gru"}, "optimizer": {"name": "muon"}}},
    "rnn": {
        "prepare": {"val_share": 0.01, "test_share": 0.01},
        "train": {"model": {"cell": "rnn"}, "average": {"name": "none"}},
    },
    "awd": {"train": {"dropout": _AWD, "random_window": True, "average": {"name": "mean", "start": 0.5}}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""

WORDS = ["the", "sun", "rises", "over", "a", "quiet", "field", "and", "the", "river", "runs", "on", "below", "it"]


def text(words: int = 4000) -> str:
    """Return lines of 7 words; which word comes where has a rule, so that there is something to learn."""
    chosen = islice(cycle(WORDS[i % 13] for i in range(0, 13 * 11, 5)), words)
    return "".join(word + ("\n" if i % 7 == 6 else " ") for i, word in enumerate(chosen))


def write(folder: Path) -> None:
    """Write one file, which preparation splits."""
    (folder / "text.txt").write_text(text())


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the test text as a request that asks how likely each of its characters is."""
    whole = (raw / "text.txt").read_text()
    return [{"text": whole[int(0.9 * len(whole)) :]}], {"score": True, "tokens": True}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare the characters' probabilities with the loss that evaluation found, of all and of each block."""
    metrics = json.loads((evaluation / "metrics.json").read_text())
    (answer,) = answers
    first, *scored = answer["log_probabilities"]  # evaluation does not score the first
    assert len(scored) == metrics["tokens"]
    assert -statistics.mean(scored) == pytest.approx(metrics["loss"], abs=1e-5)
    assert answer["log_probability"] == pytest.approx(first + sum(scored))
    with (evaluation / "examples" / "outcomes.csv").open(newline="") as file:
        blocks = [(float(row["nats"]), round(float(row["tokens"]))) for row in csv.DictReader(file)]
    edges = [0, *accumulate(count for _, count in blocks)]
    assert edges[-1] == len(scored)
    for (first, last), (nats, _) in zip(pairwise(edges), blocks, strict=True):
        assert -sum(scored[first:last]) == pytest.approx(nats, abs=1e-3)
