"""Files -> a registered version's predictions. A file that cannot be used is rejected with a reason."""

import csv
import json
import logging
import mimetypes
import os
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, groupby
from pathlib import Path
from typing import IO, Any

from components.adapters.version_process import DRAWN, Answering, FileColumn
from components.contracts import NOTE, Rejected, RejectedFile, Row
from components.datasets.ingest import Unusable
from components.datasets.raw_files import listed, shown
from components.display import brief, printable_name
from components.errors import PedigreeError
from components.params import nearest

_log = logging.getLogger("pedigree.predict")

STDIN = "-"
LARGEST = 2**27
"""Most bytes of a file; prediction needs about five times as much memory."""
TOO_LARGE = f"over {LARGEST >> 20} MiB; send a smaller one"


@dataclass(frozen=True)
class Answer:
    """The version's prediction for a file, or for a line of it."""

    file: str
    columns: dict[str, Any]
    """Those of the answer; for a line, or a row of a table, its number in the column `line` before them."""
    drawn: bytes | None = None
    """A picture of the answer, as a PNG, if one was asked for."""

    @property
    def note(self) -> str:
        """What the version says about the answer."""
        return str(self.columns.get(NOTE, ""))


@dataclass(frozen=True)
class _Read:
    file: str
    row: Row
    line: int = 0
    """Number of the line, counted from 1; 0 for an entire file."""


def files(names: Iterable[str], here: Path, column: FileColumn | None) -> list[str | RejectedFile]:
    """Return the named files, and all files below the named folders.

    Paths are relative to `here`. In folders, hidden files and links to folders, which could form cycles, are
    skipped, and so are files with names of texts, such as README.txt, if the column takes other files; these are
    logged. An unreadable or empty folder gives a rejection.
    """
    paths: list[str | RejectedFile] = []
    for name in names:
        paths += _below(name, here, column) if name != STDIN and _is_folder(here / name) else [name]
    return paths


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # reading it as a file will report why
        return False


def _below(folder: str, here: Path, column: FileColumn | None) -> list[str | RejectedFile]:
    paths: list[str] = []
    rejected: list[str | RejectedFile] = []

    def reject(error: OSError) -> None:
        rejected.append(_rejection(os.path.relpath(error.filename, here), _unreadable(error)))

    for where, folders, names in os.walk(here / folder, onerror=reject):
        folders[:] = [name for name in folders if shown(name)]
        inside = Path(where).relative_to(here / folder)
        paths += [str(Path(folder) / inside / name) for name in names if shown(name)]
    if column and column.binary and (texts := sorted(filter(_is_text, paths))):
        _log.info("ignored %s", listed([printable_name(each) for each in texts]))
        paths = [each for each in paths if not _is_text(each)]
    if not paths and not rejected:
        return [_rejection(folder, "no visible file to answer is in this folder; name another")]
    return [*sorted(paths), *rejected]


def _is_text(name: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").startswith("text/")


def answers(model: Answering, paths: Iterable[str | RejectedFile], here: Path) -> Iterator[Answer | RejectedFile]:
    """Yield an answer or a rejection per file or line, in order, with only a few files in memory at a time.

    If none of the version's columns takes a file, each file is a table: lines of JSON objects, or CSV.
    """
    column, inputs = model.file, model.inputs
    reads = chain.from_iterable(
        _reads(each, here, column) if column else _rows(each, here, inputs) for each in paths
    )
    for are_rejected, group in groupby(reads, lambda each: isinstance(each, RejectedFile)):
        if are_rejected:
            yield from (each for each in group if isinstance(each, RejectedFile))
        else:
            yield from _answered(model, (each for each in group if isinstance(each, _Read)))


def _answered(model: Answering, reads: Iterable[_Read]) -> Iterator[Answer | RejectedFile]:
    asked: deque[tuple[str, int]] = deque()

    def rows() -> Iterator[Row]:
        for each in reads:
            asked.append((each.file, each.line))
            yield each.row

    for answer in model.answers(rows()):
        file, line = asked.popleft()
        if isinstance(answer, Rejected):
            yield _rejection(_at(file, line), answer.reason)
        else:
            drawn = answer.pop(DRAWN, None)
            yield Answer(file, {"line": line, **answer} if line else answer, drawn)


def _reads(path: str | RejectedFile, here: Path, column: FileColumn) -> Iterator[_Read | RejectedFile]:
    """Yield the content of a file, or that of each of its lines."""
    content = path if isinstance(path, RejectedFile) else _read(path, here, column.binary)
    if isinstance(content, RejectedFile):
        yield content
    elif isinstance(content, bytes) or not column.lines:
        yield _Read(_encodable(str(path)), {column.name: content})
    else:
        for number, line in enumerate(content.split("\n"), 1):
            yield _Read(_encodable(str(path)), {column.name: line.removesuffix("\r")}, number)


TABLES = (".jsonl", ".ndjson", ".csv")
"""Files of rows; standard input has lines of JSON."""


def _rows(path: str | RejectedFile, here: Path, inputs: Sequence[str]) -> Iterator[_Read | RejectedFile]:
    """Yield the rows of a table, each with all of the columns `inputs`; what it leaves out is None.

    Further columns, such as the target of a table, are left out with a notice, unless one is named nearly as a
    column that is missing.
    """
    if isinstance(path, RejectedFile):
        yield path
        return
    kind = TABLES[0] if path == STDIN else Path(path).suffix.lower()
    content = _read(path, here, binary=False) if kind in TABLES else _rejection(path, NO_TABLE)
    if isinstance(content, RejectedFile):
        yield content
        return
    assert isinstance(content, str), "it was read as text"
    nothing: Row = dict.fromkeys(inputs)
    further: dict[str, None] = {}
    for number, row in _csv_rows(content) if kind == ".csv" else _json_rows(content):
        if isinstance(row, str):
            yield _rejection(_at(path, number), row)
        elif reason := _misnamed(row, inputs):
            yield _rejection(_at(path, number), reason)
        else:
            left_out = [name for name in row if name not in nothing and name not in further]
            further |= dict.fromkeys(left_out)
            if left_out:
                names = listed([brief(name) for name in left_out])
                _log.info("%s: left out %s, which the version does not take", printable_name(path), names)
            yield _Read(_encodable(path), {name: row.get(name) for name in nothing}, number)


def _misnamed(row: Row, inputs: Sequence[str]) -> str:
    """Return why a row has a column that seems to be meant for one of the version's; empty if it has none."""
    missing = [name for name in inputs if name not in row]
    unknown = [name for name in row if name not in inputs]
    wrong = next((name for name in unknown if nearest(str(name), missing)), None)
    if wrong is None and len(unknown) == len(row) and row:
        wrong = unknown[0]
    if wrong is None:
        return ""
    takes = f"the columns are {listed([*inputs])}" if inputs else "the model takes none"
    return f"unknown column {brief(wrong)}{nearest(str(wrong), missing)}; {takes}"


NO_TABLE = f"not a table of rows; name a file that ends in {listed([*TABLES])}, or - for lines of JSON"


def _json_rows(text: str) -> Iterator[tuple[int, Row | str]]:
    """Yield the number of each line that is not blank, and its object or why it is none."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"not JSON ({error}); write a row as an object on one line"
            else:
                kind = type(row).__name__
                yield number, row if isinstance(row, dict) else f"a {kind}; write a row as an object on one line"


def _csv_rows(text: str) -> Iterator[tuple[int, Row | str]]:
    """Yield the number of each row's line, and the row, with None for empty values, or what is wrong with it."""
    table = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        for row in table:
            filled: Row = {name: value or None for name, value in row.items()}
            more = "more values than columns; quote values that have commas"
            yield table.line_num, more if None in row else filled
    except csv.Error as error:
        yield table.line_num, f"not CSV ({error}); quote values that have commas, quotes or line breaks"


def _at(file: str, line: int) -> str:
    return f"{file}:{line}" if line else file


def _read(name: str, here: Path, binary: bool) -> bytes | str | RejectedFile:
    try:
        data = _content(name, here)
        return data if binary else _text(data)
    except Unusable as reason:
        return _rejection(name, str(reason))
    except OSError as error:
        return _rejection(name, _unreadable(error))


@dataclass(frozen=True)
class Folders:
    """Where files of answers are written, relative to `here`; they are made if they are missing."""

    here: Path
    out: Path | None = None
    """For files in the answers, such as images."""
    draw: Path | None = None
    """For pictures of the answers."""
    inputs: Collection[str | RejectedFile] = ()
    """The files that are answered, which are never replaced."""


def written(
    answers: Iterable[Answer | RejectedFile], folders: Folders, media: Mapping[str, str]
) -> Iterator[Answer | RejectedFile]:
    """Write files in answers, and pictures of answers, into folders; yield the answers with the paths of files.

    They are named after the file that was answered, with the line and the position in a list, if there are such.

    Args:
        answers: Of a version, in its order.
        folders: Files of the same names in them are replaced.
        media: The media type of each column that holds a file, or a list of files.

    Raises:
        PedigreeError: a file cannot be written, or would replace an input.
    """
    names: set[Path] = set()
    inputs = {os.path.realpath(folders.here / each) for each in folders.inputs if isinstance(each, str)}
    write = partial(_write, folders.here, inputs, names)
    for answer in answers:
        if isinstance(answer, RejectedFile):
            yield answer
            continue
        columns = dict(answer.columns)
        if folders.out:
            for name in media.keys() & columns.keys():
                value, ending = columns[name], media[name].rpartition("/")[2]
                stem = _stem(answer, folders.out) + (f"-{name}" if len(media) > 1 else "")
                if isinstance(value, list):
                    columns[name] = [write(f"{stem}-{n}", ending, each) for n, each in enumerate(value, 1)]
                else:
                    columns[name] = write(stem, ending, value)
        if folders.draw and answer.drawn:
            write(_stem(answer, folders.draw), "png", answer.drawn)
        yield Answer(answer.file, columns)


def _stem(answer: Answer, folder: Path) -> str:
    """Return where the files of an answer go, without an ending: below `folder` as its own file is below here."""
    source = Path("stdin" if answer.file == STDIN else answer.file)
    inside = [part for part in source.parent.parts if part not in (source.anchor, os.pardir)]
    line = answer.columns.get("line")
    return str(folder.joinpath(*inside, source.stem)) + (f"-{line}" if line else "")


def _write(here: Path, inputs: set[str], names: set[Path], stem: str, ending: str, content: bytes) -> str:
    """Write a file under a name that is new among `names`, as two inputs may differ in their endings only."""
    paths = (Path(f"{stem}{again}.{ending}") for again in chain([""], (f"-{n}" for n in count(2))))
    path = next(each for each in paths if each not in names)
    names.add(path)
    if os.path.realpath(here / path) in inputs:
        raise PedigreeError(
            f"{path} would be replaced by what is written, but it is to be answered: name another folder"
        )
    try:
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_bytes(content)
    except OSError as error:
        raise PedigreeError(f"{path} cannot be written ({error.strerror}): name another folder") from None
    return str(path)


def _content(name: str, here: Path) -> bytes:
    """Return the bytes of a file or of standard input, without reading more than `LARGEST` allows."""
    if name == STDIN:
        return _bounded(sys.stdin.buffer)
    path = here / name
    if path.exists() and not path.is_file():  # opening a named pipe would block forever
        raise Unusable("not a file; name a file or a folder")
    if path.stat().st_size > LARGEST:
        raise Unusable(TOO_LARGE)
    with path.open("rb") as file:
        return _bounded(file)


def _bounded(file: IO[bytes]) -> bytes:
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Unusable(TOO_LARGE)
    return data


def _text(data: bytes) -> str:
    """Return UTF-8 text without a byte-order mark and a final newline, which editors add."""
    try:
        return data.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise Unusable(f"not text: its byte {error.start} is not UTF-8; send text in UTF-8") from None


def _unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check its name"
    return f"unreadable ({error.strerror}); check its permissions and its disk"


def _rejection(file: str, reason: str) -> RejectedFile:
    return RejectedFile(file=_encodable(file), reason=" ".join(reason.split()))  # on one line


def _encodable(name: str) -> str:
    """Return a name that JSON can hold, with bytes that are not UTF-8 escaped by backslashes."""
    return name.encode(errors="backslashreplace").decode()
