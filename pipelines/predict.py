"""`pedigree predict`: files to a registered version's answers, as JSON lines or as a table."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from components import params
from components.adapters import mlflow_store, mlflow_versions, served_files
from components.contracts import Refusal
from components.errors import PedigreeError
from components.stages import predict as stage
from components.stages.predict import Answer

Form = Literal["json", "table"]
SHOWN = 5
"""Of a list, or of the greatest numbers by name, in a cell."""


def given(settings: Iterable[str]) -> dict[str, Any]:
    """Return a request's params as they were written, `temperature=0.8`.

    Raises:
        PedigreeError: one is written otherwise.
    """
    chosen: dict[str, Any] = {}
    for each in settings:
        if not each.partition("=")[1]:
            raise PedigreeError(f"--set {each}: write it as param=value, for example temperature=0.8")
        chosen |= params.assignment(each, ()).tree
    return chosen


def predict(
    root: Path, here: Path, address: str, names: Sequence[str], settings: Mapping[str, Any], form: Form, debug: bool
) -> bool:
    """Print what a version answers to files named from the folder `here`; tell whether all of them were good.

    Raises:
        PedigreeError: there is no such version, it cannot be loaded, or it refuses the settings.
    """
    mlflow_store.connect(root)
    version = mlflow_versions.find(address)
    with served_files.answering(version, settings, debug) as model:
        found = stage.files(names, here)
        refused, table = 0, Table(box=SIMPLE, pad_edge=False)
        with _bar(form) as bar:
            for each in bar.track(stage.answers(model, found, here), total=len(found), description=version.name):
                if isinstance(each, Refusal):
                    refused += 1
                    bar.console.print(f"{each.file}: {each.reason}", markup=False, highlight=False, soft_wrap=True)
                elif form == "json":
                    print(json.dumps({"file": each.file, **each.columns}), flush=True)
                else:
                    _add(table, each)
        if table.rows:
            Console(highlight=False).print(table)
    return not refused


def _bar(form: Form) -> Progress:
    """Return a bar on standard error where that is a terminal, and no lines of answers show how far it is."""
    lines = form == "json" and sys.stdout.isatty()
    hidden = lines or not sys.stderr.isatty()
    # Answers go to standard output, past rich, which would put them on standard error.
    return Progress(console=Console(stderr=True), transient=True, disable=hidden, redirect_stdout=False)


def _add(table: Table, answer: Answer) -> None:
    row = {"file": answer.file, **answer.columns}
    if not table.columns:
        for name in row:
            table.add_column(name)
    table.add_row(*(Text(_cell(value)) for value in row.values()))  # brackets are no markup


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        most = sorted(value.items(), key=lambda item: item[1], reverse=True)
        return "  ".join(_first(f"{name} {number:.3g}" for name, number in most))
    if isinstance(value, list):
        return "  ".join(_first(_cell(each) for each in value))
    return str(value)


def _first(cells: Iterable[str]) -> Iterator[str]:
    for count, cell in enumerate(cells):
        if count == SHOWN:
            yield "…"
            return
        yield cell
