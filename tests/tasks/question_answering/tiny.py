"""Tiny questions about where things are, and what the served model must answer."""

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

_MODEL = {
    "network": "lstm",
    "size": 16,
    "layers": 1,
    "dropout": 0,
    "bert": {"layers": 1, "hidden": 16, "heads": 2, "intermediate": 16, "positions": 64},
}
SETTINGS = {
    "prepare": {"longest": 24, "longest_question": 10, "overlap": 4, "tokenizer": {"vocabulary": 120}},
    "train": {
        "workers": 0,
        "epochs": 3,
        "batch_size": 16,
        "precision": "fp32",
        "optimizer": {"name": "adamw", "lr": 2.0e-2},
        "model": _MODEL,
    },
    "evaluate": {"longest_answer": 8},
    "register": {"gate": {"at_least": {"f1_gain_low": -1}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds; some contexts need two windows."""
VARIANTS = {
    "plain": {"train": {"model": {"dropout": 0.1, "layers": 2}}},
    "bert": {"train": {"model": {"network": "bert"}, "init": {"layer_decay": 0.9}}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""

THINGS = ("cat", "dog", "hat", "pear", "saw", "fox", "plum")
PLACES = ("on the table", "in the old box", "under the bed", "near the big door", "in London", "at home")


class Asked(NamedTuple):
    """A question, and its answer; empty without one."""

    context: str
    question: str
    answer: str
    start: int


def asked(contexts: int = 40, seed: int = 0) -> Iterator[Asked]:
    """Yield three questions about each of different contexts; one of them has no answer."""
    drawn = random.Random(seed)
    for number in range(contexts):
        things = drawn.sample(THINGS, 4)
        absent = things.pop()
        places = drawn.sample(PLACES, 3)
        sentences = [f"The {thing} is {place}." for thing, place in zip(things, places, strict=True)]
        context = f"Day {number}: " + " ".join(sentences)
        for thing, place in zip(things[:2], places, strict=False):
            yield Asked(context, f"Where is the {thing}?", place, context.index(place))
        yield Asked(context, f"Where is the {absent}?", "", -1)


def squad(questions: list[Asked], title: str = "Days") -> dict[str, Any]:
    """Return questions in the format of SQuAD 2.0."""
    paragraphs: dict[str, list[dict[str, Any]]] = {}
    for number, each in enumerate(questions):
        answers = [{"text": each.answer, "answer_start": each.start}] if each.answer else []
        qa = {"id": f"q{number}", "question": each.question, "answers": answers, "is_impossible": not answers}
        paragraphs.setdefault(each.context, []).append(qa)
    listed = [{"context": context, "qas": qas} for context, qas in paragraphs.items()]
    return {"version": "v2.0", "data": [{"title": title, "paragraphs": listed}]}


def write(folder: Path) -> None:
    """Write a file in SQuAD's format, from which preparation draws the splits, and what it is."""
    (folder / "days.json").write_text(json.dumps(squad([*asked()])))
    (folder / "README.txt").write_text("Where things are on some days.\n")


def predictions(evaluation: Path) -> list[dict[str, str]]:
    """Return the rows of predictions.csv."""
    with (evaluation / "examples" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the test questions, each with white space around it."""
    known = {f"days.json:q{number}": each for number, each in enumerate(asked())}
    tested = [known[row["at"]] for row in predictions(evaluation)]
    return [{"question": f" {each.question}\n", "context": each.context} for each in tested], {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare answers, places and scores with those of evaluation."""
    for answer, row in zip(answers, predictions(evaluation), strict=True):
        assert (answer["answer"], answer["start"]) == (row["answer"], int(row["start"]))
        assert answer["score"] == pytest.approx(float(row["score"]), abs=1e-5)
        assert answer["no_answer"] == pytest.approx(float(row["no_answer"]), abs=1e-4)
        assert answer["note"] == ""
