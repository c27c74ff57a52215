"""Files -> a registered version's predictions. A file that cannot be used is rejected with a reason."""

import json
import logging
import mimetypes
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count, groupby
from pathlib import Path
from typing import IO, Any

from components.adapters.version_process import DRAWN, Answering, FileColumn
from components.contracts import ID, NOTE, Rejected, RejectedFile, Row
from components.datasets.ingest import Unusable
from components.datasets.raw_files import listed, shown
from components.display import brief, printable_name
from components.errors import PedigreeError
from components.params import nearest
from components.text import tables
from components.text.lines import CARRIAGE_RETURNS

_log = logging.getLogger("pedigree.predict")

STDIN = "-"
LINE = "line"
"""Column of an answer with the number of its line."""
LARGEST = 2**27
"""Most bytes of a file; prediction needs about five times as much memory."""
TOO_LARGE = f"over {LARGEST >> 20} MiB; send a smaller one"


@dataclass(frozen=True)
class Answer:
    """The version's prediction for a file, or for a line of it."""

    file: str
    columns: dict[str, Any]
    """Those of the answer; before them the column `line`, if it is for a line or for a row of a table, which begins
    there, and the column `id`, if the row has one."""
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
    place: Row = field(default_factory=dict)
    """The columns of the answer that say where in the file the row is."""


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
    """Yield an answer or a rejection per file, line or row, in order, with only a few in memory at a time.

    If none of the version's columns takes a file, each file is a table of rows. A version of texts also takes
    tables, and a version can read further files itself.
    """
    reads = chain.from_iterable(_reads(each, here, model) for each in paths)
    for are_rejected, group in groupby(reads, lambda each: isinstance(each, RejectedFile)):
        if are_rejected:
            yield from (each for each in group if isinstance(each, RejectedFile))
        else:
            yield from _answered(model, (each for each in group if isinstance(each, _Read)))


def _answered(model: Answering, reads: Iterable[_Read]) -> Iterator[Answer | RejectedFile]:
    asked: deque[_Read] = deque()

    def rows() -> Iterator[Row]:
        for each in reads:
            asked.append(replace(each, row={}))  # rows can be large
            yield each.row

    for answer in model.answers(rows()):
        read = asked.popleft()
        if isinstance(answer, Rejected):
            yield _rejection(_at(read.file, read.place), answer.reason)
        else:
            drawn = answer.pop(DRAWN, None)
            yield Answer(read.file, {**read.place, **answer}, drawn)


def _reads(path: str | RejectedFile, here: Path, model: Answering) -> Iterator[_Read | RejectedFile]:
    """Yield what is asked of a file: its content, its lines, or its rows."""
    if isinstance(path, RejectedFile):
        yield path
        return
    suffix = "" if path == STDIN else tables.suffix_of(Path(path))
    if suffix in model.readers:
        yield from _from_file(path, here, lambda file: _read_by_version(path, model.read(file, suffix)))
    elif model.file and not (model.table and suffix in tables.SUFFIXES):
        yield from _texts(path, here, model.file)
    elif path == STDIN or suffix in _tables(model):
        yield from _from_file(path, here, lambda file: _rows(path, file, model))
    else:
        named = listed([*model.readers, *_tables(model)])
        yield _rejection(path, f"not a table of rows; name a file that ends in {named}, or - for lines of JSON")


def _tables(model: Answering) -> Sequence[str]:
    """Return the suffixes of files of rows; a tab separates only the cells of texts."""
    return tables.SUFFIXES if model.table else (*tables.JSONL, tables.CSV)


def _texts(path: str, here: Path, column: FileColumn) -> Iterator[_Read | RejectedFile]:
    """Yield the content of a file, or that of each of its lines."""
    content = _read(path, here, column.binary)
    if isinstance(content, RejectedFile):
        yield content
    elif isinstance(content, bytes) or not column.lines:
        yield _Read(_encodable(path), {column.name: content})
    elif "\r" in content and "\n" not in content:
        yield _rejection(path, CARRIAGE_RETURNS)
    else:
        for number, line in enumerate(content.split("\n"), 1):
            yield _Read(_encodable(path), {column.name: line.removesuffix("\r")}, {LINE: number})


def _from_file(
    path: str, here: Path, reads: Callable[[Path], Iterator[_Read | RejectedFile]]
) -> Iterator[_Read | RejectedFile]:
    """Yield what is read from a file; if it cannot be read, or from some line on, the last one is a rejection."""
    try:
        with _file(path, here) as file:
            try:
                yield from reads(file)
            except PedigreeError as error:
                yield _unread(path, file, error)
    except Unusable as reason:
        yield _rejection(path, str(reason))
    except OSError as error:
        yield _rejection(path, _unreadable(error))


@contextmanager
def _file(name: str, here: Path) -> Iterator[Path]:
    """Give a file's path; standard input, which can be read only once, is copied into a file of lines of JSON."""
    if name != STDIN:
        _expect_file(here / name)
        with (here / name).open("rb"):  # whoever reads it, in whichever process, can
            pass
        yield here / name
        return
    with tempfile.TemporaryDirectory(prefix="pedigree-") as folder:
        copy = Path(folder, f"stdin{tables.JSONL[0]}")
        copy.write_bytes(_bounded(sys.stdin.buffer))
        yield copy


def _unread(path: str, file: Path, error: PedigreeError) -> RejectedFile:
    """Return the rejection of a file, given an error that begins with its name, and maybe the number of a line."""
    said = str(error).removeprefix(str(file))
    if found := re.match(r"(:\d+)?: ", said):
        return _rejection(f"{path}{found[1] or ''}", said[found.end() :])
    return _rejection(path, said if said == str(error) else f"it {said.strip()}")


def _read_by_version(path: str, found: Iterable[tuple[str, Row | Rejected]]) -> Iterator[_Read | RejectedFile]:
    for name, row in found:
        if isinstance(row, Rejected):
            yield _rejection(_at(path, {ID: name}), row.reason)
        else:
            yield _Read(_encodable(path), row, {ID: name})


def _rows(path: str, file: Path, model: Answering) -> Iterator[_Read | RejectedFile]:
    """Yield the rows of a table, each with all of the version's inputs; what it leaves out is None.

    Further columns, such as the target of a table, are left out with a notice, unless one is named nearly as a
    column that is missing.

    Raises:
        PedigreeError: it cannot be read, or not from some line on.
    """
    table = tables.opened(file, model.table.header if model.table else True)
    columns = _columns(table, model)
    wanted = [*columns.values()]
    if table.delimiter and (
        problem := _lacking(table, wanted) if model.table else _misnamed(table.columns, wanted)
    ):
        yield _rejection(path, problem)
        return
    # Cells of texts are texts, also if they are empty or numbers of JSON.
    value = tables.text_in if model.table else _cell if table.delimiter else _value
    with_id = ID in table.columns and ID not in wanted
    seen = {*wanted, ID}
    for row in table.rows():
        place: Row = {LINE: row.line}
        try:
            usable = _usable(row, table, wanted)
            cells = {name: value(usable, column) for name, column in columns.items()}
        except Unusable as reason:
            yield _rejection(_at(path, place), str(reason))
            continue
        if left_out := [name for name in usable.cells if name not in seen]:
            seen.update(left_out)
            names = listed([brief(name) for name in left_out])
            _log.info("%s: left out %s, which the version does not take", printable_name(path), names)
        if with_id:
            name = usable.cells.get(ID)
            place[ID] = name if isinstance(name, str | int) else None
        yield _Read(_encodable(path), cells, place)


def _usable(row: tables.Row | tables.BadRow, table: tables.Table, wanted: Sequence[str]) -> tables.Row:
    """Return a row that can be asked about; raise Unusable otherwise."""
    if isinstance(row, tables.BadRow):
        raise Unusable(row.reason if table.delimiter else f"{row.reason}; write a row as an object on one line")
    if row.swallowed and len(table.columns) > 1 and all(row.swallowed):
        raise Unusable(tables.JOINED)
    if reason := _misnamed(row.cells, wanted):
        raise Unusable(reason)
    return row


def _columns(table: tables.Table, model: Answering) -> dict[str, str]:
    """Return the column of each input: that of preparation, or one that is called as the input."""
    named = model.table.columns if model.table else {}
    own = {name: named.get(name, name) for name in model.inputs}
    return {
        name: name if column not in table.columns and name in table.columns else column
        for name, column in own.items()
    }


def _lacking(table: tables.Table, wanted: Sequence[str]) -> str:
    """Return which column a table of texts lacks; empty if it has all of them."""
    lacking = [column for column in wanted if column not in table.columns]
    there = listed([brief(each) for each in table.columns])
    return f"it has the columns {there}, and none is called {brief(lacking[0])}; rename one" if lacking else ""


def _value(row: tables.Row, column: str) -> Any:
    return row.cells.get(column)


def _cell(row: tables.Row, column: str) -> Any:
    return row.cells.get(column) or None


def _misnamed(row: Collection[str], inputs: Sequence[str]) -> str:
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


def _at(file: str, place: Row) -> str:
    """Return where a row is: its file, and its line or else its id."""
    return ":".join([file, *(str(place[name]) for name in (LINE, ID) if name in place)][:2])


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
    inputs = _real(folders)
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


def write_objects(objects: Mapping[str, Row], folders: Folders) -> list[str]:
    """Write JSON objects into the folder of files, each under its name there; return their paths.

    Raises:
        PedigreeError: one cannot be written, or would replace an input.
    """
    assert folders.out, "there is a folder"
    inputs = _real(folders)
    stems = {name: str(folders.out / Path(name).stem) for name in objects}
    return [
        _write(folders.here, inputs, set(), stems[name], "json", f"{json.dumps(content)}\n".encode())
        for name, content in objects.items()
    ]


def _real(folders: Folders) -> set[str]:
    return {os.path.realpath(folders.here / each) for each in folders.inputs if isinstance(each, str)}


def _stem(answer: Answer, folder: Path) -> str:
    """Return where the files of an answer go, without an ending: below `folder` as its own file is below here."""
    source = Path("stdin" if answer.file == STDIN else answer.file)
    inside = [part for part in source.parent.parts if part not in (source.anchor, os.pardir)]
    line = answer.columns.get(LINE)
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
    _expect_file(path)
    if path.stat().st_size > LARGEST:
        raise Unusable(TOO_LARGE)
    with path.open("rb") as file:
        return _bounded(file)


def _expect_file(path: Path) -> None:
    if path.exists() and not path.is_file():  # opening a named pipe would block forever
        raise Unusable("not a file; name a file or a folder")


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
