"""Files -> a registered version's predictions. A file that cannot be used is rejected with a reason."""

import logging
import mimetypes
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from components.adapters.version_process import DRAWN, Answering, FileColumn
from components.contracts import NOTE, Rejected, RejectedFile, Row
from components.datasets.ingest import Unusable
from components.datasets.raw_files import listed, shown
from components.display import printable_name
from components.errors import PedigreeError

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
    """Those of the answer; for a line, its number in the column `line` before them."""
    drawn: bytes | None = None
    """A picture of the answer, as a PNG, if one was asked for."""

    @property
    def note(self) -> str:
        """What the version says about the answer."""
        return str(self.columns.get(NOTE, ""))


@dataclass(frozen=True)
class _Read:
    file: str
    content: bytes | str
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

    Raises:
        PedigreeError: the version does not say which of its columns takes a file.
    """
    if model.file is None:
        raise PedigreeError(
            f"{model.name} does not say which of its columns takes a file: send requests to "
            f"`pedigree serve {model.address}`, or register a new version"
        )
    column = model.file
    reads = (read for each in paths for read in _reads(each, here, column))
    for are_rejected, group in groupby(reads, lambda each: isinstance(each, RejectedFile)):
        if are_rejected:
            yield from (each for each in group if isinstance(each, RejectedFile))
        else:
            yield from _answered(model, column, (each for each in group if isinstance(each, _Read)))


def _answered(model: Answering, column: FileColumn, reads: Iterable[_Read]) -> Iterator[Answer | RejectedFile]:
    asked: deque[tuple[str, int]] = deque()

    def rows() -> Iterator[Row]:
        for each in reads:
            asked.append((each.file, each.line))
            yield {column.name: each.content}

    for answer in model.answers(rows()):
        file, line = asked.popleft()
        if isinstance(answer, Rejected):
            yield _rejection(f"{file}:{line}" if line else file, answer.reason)
        else:
            drawn = answer.pop(DRAWN, None)
            yield Answer(file, {"line": line, **answer} if line else answer, drawn)


def _reads(path: str | RejectedFile, here: Path, column: FileColumn) -> Iterator[_Read | RejectedFile]:
    """Yield the content of a file, or that of each of its lines."""
    read = path if isinstance(path, RejectedFile) else _read(path, here, column.binary)
    if isinstance(read, RejectedFile) or isinstance(read.content, bytes) or not column.lines:
        yield read
    else:
        for number, line in enumerate(read.content.split("\n"), 1):
            yield _Read(read.file, line.removesuffix("\r"), number)


def _read(name: str, here: Path, binary: bool) -> _Read | RejectedFile:
    try:
        data = _content(name, here)
        return _Read(_encodable(name), data if binary else _text(data))
    except Unusable as reason:
        return _rejection(name, str(reason))
    except OSError as error:
        return _rejection(name, _unreadable(error))


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
