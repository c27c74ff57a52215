"""A few letters of several alphabets, and what the served model must answer about them."""

from pathlib import Path
from typing import Any

import numpy as np

from components.datasets import ingest
from components.images.embedded.glyphs import write_glyphs
from components.stages import evaluate, prepare
from components.tasks.few_shot.evaluate import outcomes_from

SETTINGS = {
    "train": {
        "workers": 0,
        "epochs": 2,
        "precision": "fp32",
        "episodes": {"count": 8, "ways": 5, "shots": 1, "queries": 2},
        "model": {"width": 8},
    },
    "register": {"gate": {"at_least": {"accuracy": 0}, "margins": {}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
VARIANTS = {
    "turned": {},
    "plain": {"train": {"augment": {"turns": False, "rotate": 0, "scale": 0, "shift": 0}}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""
ALPHABETS = {
    "train": {"latin": (0x61, 0x65), "cyrillic": (0x430, 0x434), "armenian": (0x561, 0x564)},
    "test": {"greek": (0x3B1, 0x3B4), "hebrew": (0x5D0, 0x5D3)},
}
IMAGES = 7


def write(folder: Path) -> None:
    """Write a few images of each letter."""
    write_glyphs(folder, ALPHABETS, IMAGES)


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a request's row for each test image, and ask for embeddings."""
    files = ingest.file_names(evaluation.parent / "prepared", "test")
    return [{"image": (raw / file).read_bytes()} for file in files], {"embedding": True}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Expect the embeddings to give the outcomes that evaluation had."""
    found = outcomes_from(answers, prepare.load(evaluation.parent / "prepared"))
    expected = evaluate.read_outcomes(evaluation)
    assert found.samples == expected.samples
    for name, column in expected.columns.items():
        np.testing.assert_allclose(found.columns[name], column, atol=1)  # last digits may decide a query
