"""Answers of a registered version, in a separate process and with the version's own code."""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types.schema import Array, DataType, ParamSpec

from components.adapters import mlflow_store, mlflow_versions
from components.adapters.mlflow_versions import Version
from components.contracts import Rejected, Row
from components.datasets.raw_files import listed
from components.errors import PedigreeError
from components.params import nearest
from components.runtime import processes

ERROR = "error"
"""Column of an answer with the reason why its row was rejected."""
DRAWN = "drawn"
"""Column of an answer with a picture of it, if pictures were asked for."""
TABLE, JSON = "table", "json"
"""The formats in which the answers of any version can be printed."""
TOGETHER, SIZE = 16, 2**25
"""Most rows of a request, and most bytes or characters of their values together, unless a single row has more."""
_SCRIPT = Path(__file__).with_name("answering.py")


class FormatError(PedigreeError):
    """A version has no such format."""


@dataclass(frozen=True)
class FileColumn:
    """The input column for a file's content, and whether it takes bytes instead of text."""

    name: str
    binary: bool
    lines: bool = False
    """Whether each line of a file is a row of its own."""


@dataclass(frozen=True)
class TextTable:
    """How a version's tables of texts are read, as its data were."""

    columns: Mapping[str, str]
    """By input, the name of its column."""
    header: bool
    """Whether the first line names the columns."""


@dataclass(frozen=True)
class Answering:
    """A version that is loaded in its process."""

    name: str
    columns: Sequence[str]
    """Columns of a request without rows."""
    inputs: Sequence[str]
    """All columns that a row may have."""
    file: FileColumn | None
    """None if the version does not say which column takes a file."""
    params: Mapping[str, Any]
    """The params of every request."""
    bytes_columns: frozenset[str]
    """The columns of an answer that contain bytes, or lists of them."""
    media: Mapping[str, str]
    """The media types of those that hold files."""
    process: subprocess.Popen[str]
    draw: bool = False
    """Whether each answer should have a picture in the column `DRAWN`."""
    form: str = JSON
    """The format of `entries`."""
    table: TextTable | None = None
    """None if only files of rows are tables."""
    readers: frozenset[str] = frozenset()
    """Suffixes of files that the version reads itself."""
    objects: frozenset[str] = frozenset()
    """The formats that are JSON objects."""

    def ask(self, rows: Sequence[Row]) -> list[Row | Rejected] | str:
        """Return an answer or a rejection for each row, or the reason why the params are rejected.

        Only a request without rows can have that reason.

        Raises:
            PedigreeError: the process ended.
        """
        request = {
            "columns": list(rows[0]) if rows else self.columns,
            "rows": [{name: _sent(value) for name, value in row.items()} for row in rows],
            "binary": sorted({name for row in rows for name, value in row.items() if isinstance(value, bytes)}),
            "params": dict(self.params),
            "draw": self.draw,
        }
        return self._exchange(request)

    def _exchange(self, request: Mapping[str, Any]) -> list[Row | Rejected] | str:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `listen` raises instead
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self.listen()

    def answers(self, rows: Iterable[Row]) -> Iterator[Row | Rejected]:
        """Yield an answer or a rejection per row, in order, with only a few rows in memory at a time.

        Raises:
            PedigreeError: the process ended.
        """
        waiting: list[Row] = []
        size = 0
        for row in rows:
            more = sum(len(value) for value in row.values() if isinstance(value, bytes | str | list))
            if waiting and (len(waiting) == TOGETHER or size + more > SIZE):
                yield from self._answered(waiting)
                waiting, size = [], 0
            waiting.append(row)
            size += more
        if waiting:
            yield from self._answered(waiting)

    def _answered(self, rows: Sequence[Row]) -> list[Row | Rejected]:
        answers = self.ask(rows)
        assert not isinstance(answers, str), "only a request without rows is rejected as a whole"
        if len(answers) != len(rows):
            raise PedigreeError(f"{self.name} gives {len(answers)} answers to {len(rows)} rows")
        return answers

    def read(self, file: Path, suffix: str) -> Iterator[tuple[str, Row | Rejected]]:
        """Yield the id and the row of each sample of a file that the version reads itself, or why it has none.

        Raises:
            PedigreeError: the file cannot be read, or the process ended.
        """
        self._exchange({"read": str(file), "suffix": suffix})
        while found := self._exchange({"next": TOGETHER}):
            if isinstance(found, str):
                raise PedigreeError(found)
            for each in found:
                assert not isinstance(each, Rejected), "a reason is a column here"
                if "problem" in each:
                    raise PedigreeError(each["problem"])
                yield each["id"], Rejected(each["reason"]) if "reason" in each else each["row"]

    def entries(self, file: str, answer: Row) -> list[Row]:
        """Return the entries of an answer in a format of the field.

        Raises:
            PedigreeError: the process ended.
        """
        sent = {name: _sent(value) for name, value in answer.items()}
        found = self._exchange({"format": self.form, "file": file, "answer": sent})
        assert not isinstance(found, str), "an answer was not rejected"
        return [each for each in found if not isinstance(each, Rejected)]

    def listen(self) -> list[Row | Rejected] | str:
        """Return the next message of the process; raises as `ask` does."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PedigreeError(
                f"the process of {self.name} ended with exit code {self.process.wait()}: check whether memory ran "
                "out; `pedigree --debug predict …` shows its output"
            )
        message: dict[str, Any] = json.loads(line)
        return (
            str(message["rejected"]) if "rejected" in message else [self._row(each) for each in message["answers"]]
        )

    def _row(self, answer: Row) -> Row | Rejected:
        if reason := answer.get(ERROR):
            return Rejected(re.sub(r"^row \d+: ", "", str(reason)))
        return {
            name: _received(value) if name in self.bytes_columns or name == DRAWN else value
            for name, value in answer.items()
            if name != ERROR
        }


def _received(value: Any) -> Any:
    return [base64.b64decode(each) for each in value] if isinstance(value, list) else base64.b64decode(value)


def _sent(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


@contextmanager
def answering(
    version: Version,
    params: Mapping[str, Any],
    debug: bool = False,
    only_known: bool = False,
    draw: bool = False,
    form: str = JSON,
) -> Iterator[Answering]:
    """Load a version in a process that lives as long as the block.

    Args:
        version: The version.
        params: The params of every request.
        debug: Show its output.
        only_known: Leave out params that it does not take, as an older version may not.
        draw: Have a picture of each answer drawn.
        form: The format in which answers are printed.

    Raises:
        FormatError: it has no such format.
        PedigreeError: the version's files are missing, it does not take these params, draws no pictures, or does
            not load.
    """
    name = f"{version.name} version {version.version}"
    with tempfile.TemporaryDirectory(prefix="pedigree-") as scratch:
        folder = mlflow_versions.fetch(version, Path(scratch))
        try:
            described = Model.load(str(folder))
        except MlflowException:
            raise PedigreeError(
                f"{name} is not a model that MLflow can load: register one with log_model"
            ) from None
        known = _params(described)
        if only_known:
            params = {key: value for key, value in params.items() if key in known}
        _check_params(known, params, name)
        _check_form(described, form, name)
        with _process(folder, debug) as process:
            model = Answering(
                name,
                _columns(described),
                _inputs(described),
                _file_column(described, {key: spec.default for key, spec in known.items()} | dict(params)),
                params,
                _bytes_columns(described),
                (described.metadata or {}).get(mlflow_versions.MEDIA, {}),
                process,
                draw,
                form,
                _table(described),
                frozenset((described.metadata or {}).get(mlflow_versions.READERS, ())),
                frozenset((described.metadata or {}).get(mlflow_versions.OBJECTS, ())),
            )
            if isinstance(problem := model.listen(), str):
                raise PedigreeError(
                    f"{name} cannot be loaded here ({problem}): install what its requirements.txt lists"
                )
            if isinstance(problem := model.ask([]), str):  # without rows, only the params can be rejected
                raise PedigreeError(f"{name} rejects the request: {problem}")
            yield model


@contextmanager
def _process(folder: Path, debug: bool) -> Iterator[subprocess.Popen[str]]:
    # -P keeps the script's folder, which belongs to this checkout, out of sys.path.
    with subprocess.Popen(
        [sys.executable, "-P", str(_SCRIPT), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if debug else subprocess.DEVNULL,
        env=os.environ | processes.keeping_memory() | {"MLFLOW_TRACKING_URI": mlflow_store.tracking_uri()},
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # closing flushes what is still buffered
                process.stdin.close()


def _columns(described: Model) -> list[str]:
    """Return the columns that every request has."""
    inputs, file = described.get_input_schema(), _file_column(described, {})
    required = inputs.required_input_names() if inputs is not None and inputs.has_input_names() else []
    return [str(name) for name in required] or ([file.name] if file else [])


def _inputs(described: Model) -> list[str]:
    inputs = described.get_input_schema()
    return [str(name) for name in inputs.input_names()] if inputs is not None and inputs.has_input_names() else []


def _file_column(described: Model, params: Mapping[str, Any]) -> FileColumn | None:
    metadata = described.metadata or {}
    column = metadata.get(mlflow_versions.FILE)
    inputs = described.get_input_schema()
    if column is None or inputs is None:
        return None
    kind = metadata.get(mlflow_versions.FILE_KIND) or inputs.input_dict()[column].type.name
    lines = metadata.get(mlflow_versions.LINES)
    return FileColumn(column, kind == "binary", lines is not None and lines.items() <= params.items())


def _table(described: Model) -> TextTable | None:
    metadata = described.metadata or {}
    columns = metadata.get(mlflow_versions.COLUMNS)
    return TextTable(columns, metadata[mlflow_versions.HEADER]) if columns else None


def _bytes_columns(described: Model) -> frozenset[str]:
    outputs = described.get_output_schema()
    named = outputs.input_dict() if outputs is not None and outputs.has_input_names() else {}
    return frozenset(name for name, column in named.items() if column.type in _BYTES)


_BYTES = (DataType.binary, Array(DataType.binary))


def _params(described: Model) -> dict[str, Any]:
    """Return MLflow's specification of each param that a version takes."""
    schema = described.get_params_schema()
    return {spec.name: spec for spec in schema.params} if schema else {}


def _check_params(known: Mapping[str, Any], given: Mapping[str, Any], name: str) -> None:
    """Reject unknown params, which MLflow would ignore with a warning in a log, and values of a wrong type."""
    for key, value in given.items():
        if key not in known:
            params = f"it takes {', '.join(known)}" if known else "it takes none: leave it out"
            raise PedigreeError(f"{key}: {name} has no such param{nearest(key, known)}; {params}")
        try:
            ParamSpec.validate_param_spec(value, known[key])
        except MlflowException:
            raise PedigreeError(
                f"{key}={value}: the value is not a {known[key].dtype.name}, which {name} needs: change it"
            ) from None


def _check_form(described: Model, form: str, name: str) -> None:
    formats = (TABLE, JSON, *(described.metadata or {}).get(mlflow_versions.FORMATS, ()))
    if form not in formats:
        raise FormatError(
            f"{name} has no format {form!r}{nearest(form, formats)}; its formats are {listed(formats)}"
        )
