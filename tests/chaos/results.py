"""What a blow gives back, and docs/reliability.md, which says it of all blows."""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
PAGE, KEPT = "reliability.md", "reliability.json"
SHOWN = 3
"""Failures that the page quotes."""

INTRODUCTION = """# What it survives

Ctrl-C and SIGTERM end a training with all its processes within seconds, a second Ctrl-C at once; SIGKILL, a lost
host or a full disk whenever they like. The same command, the flow's retry, or `dvc repro` goes on from the last
checkpoint, at most `train.checkpoint_seconds` old (20 s in params.yaml), in the same MLflow run, and ends in
bitwise the weights that it would have had (CPU, the same number of workers and threads; with another number it goes
on, and says that the bits will differ). How this is done:
[architecture](architecture.md#what-was-interrupted-goes-on).

`make chaos` deals the blows below to the product itself, none of them simulated, and writes this page; `make chaos
ROWS="fuzz corruption"` deals some, and keeps what was found of the others. A part of each runs in
`make test` or `make test-long`. A row that says **failed** is a defect.
"""


@dataclass(frozen=True)
class Result:
    """What came of a blow."""

    times: int
    """How often it was dealt."""
    told: str
    """What was measured, in a sentence or two."""
    failures: list[str] = field(default_factory=list)
    """What should not have happened, one entry each time."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    blow: str
    times: int
    """That `make chaos` deals it."""
    run: Callable[[int, int], Result]
    """Deals it so many times, from a seed."""


def deal(rows: Mapping[str, Row], chosen: list[str], times: int | None, seed: int, docs: Path = DOCS) -> bool:
    """Deal the chosen blows and write the page after each; return whether there was no failure.

    Args:
        rows: All that the page has, in order.
        chosen: Names of them; none is all.
        times: Of each, instead of the row's own.
        seed: Of all that is random.
        docs: Folder of the page.
    """
    well = True
    for name in chosen or rows:
        row, began = rows[name], time.monotonic()
        print(f"{name}: {row.blow}", flush=True)
        result = row.run(times or row.times, seed)
        well = well and not result.failures
        print(f"{name}: {result.told}; {len(result.failures)} failures", flush=True)
        for failure in result.failures[:20]:
            print(f"  {failure}", flush=True)
        _keep(docs, name, result, time.monotonic() - began, seed)
        write(docs, rows)
    return well


def _keep(docs: Path, name: str, result: Result, seconds: float, seed: int) -> None:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    found = kept(docs) | {
        name: {
            **asdict(result),
            "seed": seed,
            "minutes": round(seconds / 60, 1),
            "machine": machine,
            "date": datetime.now(UTC).date().isoformat(),
        }
    }
    (docs / KEPT).write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def kept(docs: Path) -> dict[str, Any]:
    """Return what was found before, by row."""
    file = docs / KEPT
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def write(docs: Path, rows: Mapping[str, Row]) -> None:
    """Write the page from what was found."""
    found = kept(docs)
    table = ["| blow | times | result |", "|---|---|---|"]
    runs = ["| command | seed | took | on | date |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        if (result := found.get(name)) is None:
            table.append(f"| {row.blow} | - | not run yet: `make chaos ROWS={name}` |")
            continue
        failures = result["failures"]
        failed = f"**failed {len(failures)} times**: {_cell('; '.join(failures[:SHOWN]))}; " if failures else ""
        table.append(f"| {row.blow} | {result['times']:,} | {failed}{_cell(result['told'])} |")
        runs.append(
            f"| `make chaos ROWS={name}` | {result['seed']} | {result['minutes']} min | {result['machine']} "
            f"| {result['date']} |"
        )
    lines = [INTRODUCTION, *table, "", *runs]
    (docs / PAGE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
