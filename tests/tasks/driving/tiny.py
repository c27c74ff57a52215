"""Tiny simulated drives, and what the served model must answer about their first scenes."""

import contextlib
import csv
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from components.tasks.driving import simulator

SETTINGS = {
    "prepare": {"horizon": 0.6, "max_rejected": 0.3},
    "train": {
        "workers": 0,
        "epochs": 3,
        "batch_size": 8,
        "precision": "fp32",
        "model": {"width": 16, "layers": 1, "dropout": 0},
    },
    "register": {"gate": {"at_least": {"progress": 0}, "at_most": {"collision_rate": 1}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
SECONDS = 2


def write(folder: Path, train: int = 8, test: int = 3, environment: simulator.Environment = "highway") -> None:
    """Write drives of two seconds."""
    with contextlib.redirect_stdout(io.StringIO()):
        simulator.main(folder, environment, SECONDS, train, test)


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the first scene of each test drive, the cars of every second one as JSON."""
    lines = (evaluation / "examples" / "scenes.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{"cars": json.dumps(row["cars"])} if i % 2 else row for i, row in enumerate(rows)], {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare accelerations and lanes with what evaluation did first, and look at the plans."""
    with (evaluation / "examples" / "drives.csv").open(newline="") as file:
        drives = list(csv.DictReader(file))
    assert [answer["lane"] for answer in answers] == [int(drive["first_lane"]) for drive in drives]
    expected = [float(drive["first_acceleration"]) for drive in drives]
    assert [answer["acceleration"] for answer in answers] == pytest.approx(expected, rel=1e-4)
    for answer in answers:
        places = answer["plan"]
        assert [place["seconds"] for place in places] == pytest.approx([0.2 * n for n in range(1, 16)])
        assert all(later["x"] >= place["x"] for place, later in pairwise(places))
