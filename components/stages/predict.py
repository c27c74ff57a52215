"""Files -> a registered version's answers: what cannot be answered is refused with the reason, the rest go on."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from components.adapters.served_files import Answering
from components.contracts import Refusal
from components.intake import Unusable, shown

STDIN = "-"
TOGETHER = 16
"""Files that are asked about at once, at most."""
BYTES = 2**25
"""Of their contents together, unless one alone has more."""
LARGEST = 2**27
"""Bytes of a file, at most; about five times as many are in memory on its way to the model and in it."""
TOO_LARGE = f"over {LARGEST >> 20} MiB; send a smaller one"


@dataclass(frozen=True)
class Answer:
    """What the version said of a file."""

    file: str
    columns: dict[str, Any]


@dataclass(frozen=True)
class _Read:
    file: str
    content: bytes | str


def files(names: Iterable[str], here: Path) -> list[str | Refusal]:
    """Return the named files, as named, and those in the named folders, which may themselves hold folders.

    Paths are those below `here`. What begins with a dot is passed over in folders, and so is a link to a folder,
    for it may lead back up. What cannot be read, or an empty folder, is a refusal in its place.
    """
    found: list[str | Refusal] = []
    for name in names:
        found += _below(name, here) if name != STDIN and _is_folder(here / name) else [name]
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # to read it as a file will say why
        return False


def _below(folder: str, here: Path) -> list[str | Refusal]:
    found: list[str] = []
    unread: list[str | Refusal] = []

    def refuse(error: OSError) -> None:
        unread.append(_refusal(os.path.relpath(error.filename, here), _unreadable(error)))

    for where, folders, names in os.walk(here / folder, onerror=refuse):
        folders[:] = [name for name in folders if shown(name)]
        inside = Path(where).relative_to(here / folder)
        found += [str(Path(folder) / inside / name) for name in names if shown(name)]
    if not found and not unread:
        return [_refusal(folder, "no visible file is in this folder; name another")]
    return [*sorted(found), *unread]


def answers(model: Answering, found: Iterable[str | Refusal], here: Path) -> Iterator[Answer | Refusal]:
    """Yield what the version says of each file, or why not, in order; a few files are in memory at a time."""
    waiting: list[_Read] = []
    for each in found:
        read = each if isinstance(each, Refusal) else _read(each, here, model.binary)
        together = sum(len(file.content) for file in waiting)
        if isinstance(read, Refusal) or len(waiting) == TOGETHER or together + len(read.content) > BYTES:
            yield from _ask(model, waiting)
            waiting = []
        if isinstance(read, Refusal):
            yield read
        else:
            waiting.append(read)
    yield from _ask(model, waiting)


def _ask(model: Answering, read: Sequence[_Read]) -> Iterator[Answer | Refusal]:
    """Ask about all at once, and where that is refused about each half, until the bad ones are alone."""
    if not read:
        return
    said = model.ask([file.content for file in read])
    if not isinstance(said, str):
        yield from (Answer(file.file, columns) for file, columns in zip(read, said, strict=True))
    elif len(read) == 1:
        yield _refusal(read[0].file, re.sub(r"^row \d+: ", "", said))  # it is the only one
    else:
        half = len(read) // 2
        yield from _ask(model, read[:half])
        yield from _ask(model, read[half:])


def _read(name: str, here: Path, binary: bool) -> _Read | Refusal:
    try:
        data = _content(name, here)
        return _Read(_printable(name), data if binary else _text(data))
    except Unusable as reason:
        return _refusal(name, str(reason))
    except OSError as error:
        return _refusal(name, _unreadable(error))


def _content(name: str, here: Path) -> bytes:
    """Return a file's bytes, or those of standard input, and never read more than the largest may have."""
    if name == STDIN:
        return _bounded(sys.stdin.buffer)
    path = here / name
    if path.exists() and not path.is_file():  # to open a named pipe would wait for ever
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
    """Return UTF-8 text without the line end that editors put after the last line."""
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise Unusable(f"not text: its byte {error.start} is not UTF-8; send text in UTF-8") from None


def _unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; look at its name"
    return f"unreadable ({error.strerror}); look at its permissions and its disk"


def _refusal(file: str, reason: str) -> Refusal:
    return Refusal(file=_printable(file), reason=" ".join(reason.split()))  # a sentence is one line


def _printable(name: str) -> str:
    """Return a name that can be written anywhere: bytes in it that are not UTF-8 get backslashes."""
    return name.encode(errors="backslashreplace").decode()
