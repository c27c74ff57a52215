"""Results of injected faults, and docs/reliability.md, which reports them."""

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
PAGE, RECORDS = "reliability.md", "reliability.json"
SHOWN = 3
"""Maximum number of failures that the page quotes for each fault."""

INTRODUCTION = """# What it survives

Ctrl-C or SIGTERM stops a training and all its processes within seconds; a second Ctrl-C stops them immediately.
SIGKILL, a lost host or a full disk can strike at any time. Running the command again, the flow's retry, or
`dvc repro` resumes from the last checkpoint, at most `train.checkpoint_seconds` old (20 s in params.yaml), in the
same MLflow run. On a CPU with the same number of workers and threads, the weights are bitwise those of an
uninterrupted training; with other numbers, training resumes with a warning that the bits will differ.
[Architecture](architecture.md#resuming) describes how this works.

`make chaos` injects the faults below into the product itself (only a clock that jumps back is faked, with
libfaketime) and writes this page; `make chaos ROWS="fuzz corruption"` injects only some and keeps the recorded
results of the others. `make test` and `make test-long` run a part of each. A row that says **failed** is a defect.
"""


@dataclass(frozen=True)
class Result:
    """The result of injecting a fault."""

    times: int
    """Number of injections."""
    summary: str
    """The measurements, in a sentence or two."""
    failures: list[str] = field(default_factory=list)
    """Descriptions of failures."""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    fault: str
    times: int
    """Number of injections by `make chaos`."""
    run: Callable[[int, int], Result]
    """Injects the fault a number of times with a seed."""


def inject(rows: Mapping[str, Row], chosen: list[str], times: int | None, seed: int, docs: Path = DOCS) -> bool:
    """Inject the chosen faults and write the page after each; return whether there was no failure.

    Args:
        rows: All rows of the page, in order.
        chosen: Names of rows; an empty list means all.
        times: Number of injections of each, instead of the row's own.
        seed: Seed of all randomness.
        docs: Folder of the page.
    """
    passed = True
    for name in chosen or rows:
        row, began = rows[name], time.monotonic()
        print(f"{name}: {row.fault}", flush=True)
        result = row.run(times or row.times, seed)
        passed = passed and not result.failures
        print(f"{name}: {result.summary}; {len(result.failures)} failures", flush=True)
        for failure in result.failures[:20]:
            print(f"  {failure}", flush=True)
        _record(docs, name, result, time.monotonic() - began, seed)
        write(docs, rows)
    return passed


def _record(docs: Path, name: str, result: Result, seconds: float, seed: int) -> None:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    results = recorded(docs) | {
        name: {
            **asdict(result),
            "seed": seed,
            "minutes": round(seconds / 60, 1),
            "machine": machine,
            "date": datetime.now(UTC).date().isoformat(),
        }
    }
    (docs / RECORDS).write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded(docs: Path) -> dict[str, Any]:
    """Return the recorded results by row."""
    file = docs / RECORDS
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def write(docs: Path, rows: Mapping[str, Row]) -> None:
    """Write the page from the recorded results."""
    results = recorded(docs)
    table = ["| fault | times | result |", "|---|---|---|"]
    runs = ["| command | seed | duration | machine | date |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        if (result := results.get(name)) is None:
            table.append(f"| {row.fault} | - | not run yet: `make chaos ROWS={name}` |")
            continue
        failures = result["failures"]
        failed = f"**failed {len(failures)} times**: {_cell('; '.join(failures[:SHOWN]))}; " if failures else ""
        table.append(f"| {row.fault} | {result['times']:,} | {failed}{_cell(result['summary'])} |")
        runs.append(
            f"| `make chaos ROWS={name}` | {result['seed']} | {result['minutes']} min | {result['machine']} "
            f"| {result['date']} |"
        )
    lines = [INTRODUCTION, *table, "", *runs]
    (docs / PAGE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
