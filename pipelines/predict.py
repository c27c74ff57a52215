"""`pedigree predict`: prints a registered version's predictions for files, as a table, as JSON lines or in a format
of the field."""

import base64
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult  # noqa: TID251 - as types
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from components import params
from components.adapters import mlflow_store, mlflow_versions, version_process
from components.adapters.version_process import JSON, TABLE, Answering
from components.contracts import NOTE, RejectedFile
from components.display import brief, printable_name
from components.errors import PedigreeError
from components.registry import predict as predictions
from components.registry.predict import Answer, Folders
from pipelines import terminal

_log = logging.getLogger("pedigree.predict")

SHOWN = 5
"""Most elements of a list, or greatest numbers by name, that a cell shows, and most notes."""
NARROWEST = 16
"""Fewest characters of a path that a narrow table shows."""


@dataclass(frozen=True)
class Output:
    """What becomes of the answers."""

    form: str
    """How they are printed: as a table, as JSON lines, or in a format of the version's own."""
    out: Path | None = None
    """A folder into which files in the answers, such as images, are written; their paths are printed instead."""
    draw: Path | None = None
    """A folder into which each answer is also drawn, as a PNG with the file's name."""


def given(settings: Iterable[str]) -> dict[str, Any]:
    """Parse request parameters such as `temperature=0.8`.

    Raises:
        PedigreeError: one has no `=`.
    """
    chosen: dict[str, Any] = {}
    for each in settings:
        if not each.partition("=")[1]:
            raise PedigreeError(f"--set {each}: write it as param=value, for example temperature=0.8")
        chosen |= params.assignment(each, ()).tree
    return chosen


def predict(
    root: Path,
    here: Path,
    address: str,
    names: Sequence[str],
    settings: Mapping[str, Any],
    output: Output,
    debug: bool,
) -> bool:
    """Print a version's predictions for files, whose paths start at `here`; return whether none was rejected.

    Raises:
        FormatError: the version has no such format.
        PedigreeError: there is no such version, it cannot be loaded, it rejects the settings, or it has no files or
            pictures for a folder; or they cannot be written there.
    """
    mlflow_store.connect(root)
    version = mlflow_versions.find(address)
    form = output.form
    with version_process.answering(version, settings, debug, draw=output.draw is not None, form=form) as model:
        if output.out and not (model.media or form in model.objects):
            raise PedigreeError(f"{model.name} answers with no files that could be written: leave out --out")
        inputs = predictions.files(names, here, model.file)
        folders = Folders(here, output.out, output.draw, inputs)
        rejected, notes, printer = 0, 0, _printer(form, model, folders)
        total = len(inputs) if model.file and not model.file.lines else None
        with _bar(form) as bar:
            name = escape(printable_name(version.name))
            found = predictions.written(predictions.answers(model, inputs, here), folders, model.media)
            for each in bar.track(found, total=total, description=name):
                problem = each.reason if isinstance(each, RejectedFile) else printer.add(each)
                if problem:
                    rejected += 1
                    bar.console.print(f"{printable_name(each.file)}: {problem}", soft_wrap=True)
                elif isinstance(each, Answer) and each.note:
                    notes += 1
                    if notes <= SHOWN:
                        bar.console.print(f"note: {_place(each)}: {each.note}", soft_wrap=True)
            if notes > SHOWN:
                bar.console.print(f"note: {notes - SHOWN} more answers have such notes", soft_wrap=True)
        printer.end()
    return not rejected


def _place(answer: Answer) -> str:
    line = answer.columns.get("line")
    return printable_name(answer.file) + (f":{line}" if line else "")


class _Printer(Protocol):
    """Prints or writes answers in a format."""

    def add(self, answer: Answer) -> str:
        """Print an answer, or collect it; return why it cannot be, or an empty string."""

    def end(self) -> None:
        """Print or write what was collected."""


def _printer(form: str, model: Answering, folders: Folders) -> _Printer:
    if form == JSON:
        return _Lines()
    if form == TABLE:
        return _Table()
    return _Objects(model, folders) if form in model.objects else _Entries(model)


class _Lines:
    """Prints each answer as a line of JSON."""

    def add(self, answer: Answer) -> str:
        print(json.dumps({"file": answer.file, **answer.columns}, default=_base64), flush=True)
        return ""

    def end(self) -> None:
        pass


class _Table:
    """Prints a table of all answers."""

    def __init__(self) -> None:
        self._table = Table(box=SIMPLE, pad_edge=False)

    def add(self, answer: Answer) -> str:
        cells = {name: _cell(value) for name, value in answer.columns.items() if name != NOTE}
        if not self._table.columns:
            for name in ("file", *cells):
                self._table.add_column(name)
        self._table.add_row(_Path(printable_name(answer.file)), *cells.values())
        return ""

    def end(self) -> None:
        if self._table.rows:
            terminal.console().print(self._table)


class _Entries:
    """Prints one list of JSON objects, an object a line, with only those of one answer in memory."""

    def __init__(self, model: Answering) -> None:
        self._model, self._before = model, "["

    def add(self, answer: Answer) -> str:
        for each in self._model.entries(answer.file, answer.columns):
            print(self._before + json.dumps(each), end="")
            self._before = ",\n"
        return ""

    def end(self) -> None:
        print("[]" if self._before == "[" else "]")


class _Objects:
    """Prints a JSON object with entries of all answers, or writes several, each into its file."""

    def __init__(self, model: Answering, folders: Folders) -> None:
        self._model, self._folders = model, folders
        self._objects: dict[str, dict[str, Any]] = {}

    def add(self, answer: Answer) -> str:
        for files in self._model.entries(answer.file, answer.columns):
            for name, content in files.items():
                own = self._objects.setdefault(name, {})
                if double := next(filter(own.__contains__, content), None):
                    return f"another answer has the id {brief(double)}; answer it by itself"
                own |= content
        return ""

    def end(self) -> None:
        if self._folders.out:
            for path in predictions.write_objects(self._objects, self._folders):
                _log.info("wrote %s", printable_name(path))
        else:
            print(json.dumps(next(iter(self._objects.values()), {})))


def _bar(form: str) -> Progress:
    """Return a progress bar on standard error, hidden without a terminal or beside JSON."""
    lines = form != TABLE and sys.stdout.isatty()
    hidden = lines or not sys.stderr.isatty()
    # Predictions bypass rich, which would redirect them to standard error.
    return Progress(console=terminal.console(stderr=True), transient=True, disable=hidden, redirect_stdout=False)


class _Path:
    """A cell with a path, shortened from the left: paths of a folder differ at their ends."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = cell_len(self._text)
        return Measurement(min(width, NARROWEST), width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._text
        while cell_len(shown) > options.max_width:
            shown = f"…{shown[2:]}"
        yield Text(shown, no_wrap=True)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping) and any(isinstance(each, str) for each in value.values()):
        return " ".join(map(_cell, value.values()))  # a record, such as a translation and its score
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
