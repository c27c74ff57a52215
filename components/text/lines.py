"""Lines of a text file, which end with a line feed alone, so that files of equal lines stay in line."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

from components.datasets import formats
from components.datasets.ingest import Unusable, not_pointer
from components.errors import PedigreeError

LONGEST = 2**20
"""Largest line in bytes; a longer one is skipped, so that no file needs much memory."""
GZ = ".gz"
"""Suffix of a file that gzip compressed."""
HEAD = 1024
"""Bytes by which the kind of a file is recognised."""
CARRIAGE_RETURNS = "its lines end with carriage returns alone: save it with line feeds, as Unix and Windows do"
"""Said of a file as programs for old Macs wrote it, which would otherwise be a single line."""
REPLACEMENT = "\ufffd"
"""What programs write in place of characters that they could not read (U+FFFD)."""


class Line(NamedTuple):
    """A line without its end."""

    number: int
    """From 1."""
    text: str | None
    """None if the line has over `LONGEST` bytes."""


def lines(file: Path) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file, of which gzip may have made a `.gz` file.

    Lines end with \\n or \\r\\n, and with none of the other characters at which `str.splitlines` splits, such as
    U+2028: these belong to the text. A byte-order mark is skipped.

    Raises:
        PedigreeError: the file is empty, is not UTF-8 text, has carriage returns and no line feed, is a pointer, as
            of Git LFS, or cannot be unpacked.
    """
    number = 0
    try:
        with _opened(file) as stream:
            expect_text(stream.read(HEAD))
            stream.seek(0)
            while data := stream.readline(LONGEST + 2):  # with room for \r\n
                number += 1
                ended = data.endswith(b"\n")
                data = data.removesuffix(b"\n").removesuffix(b"\r")
                if len(data) > LONGEST:
                    while not ended and (rest := stream.readline(LONGEST)):
                        ended = rest.endswith(b"\n")
                if not ended:
                    _expect_line_feeds(number, data)
                yield Line(number, None if len(data) > LONGEST else decoded(data))
    except Unusable as reason:
        raise PedigreeError(f"{file}{f':{number}' if number else ''}: {reason}") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise PedigreeError(f"{file} cannot be unpacked ({error}): get another copy") from None


def _expect_line_feeds(number: int, data: bytes) -> None:
    """Check that a line without a line feed is not a whole file with other line ends."""
    if number == 1 and b"\r" in data:
        raise Unusable(CARRIAGE_RETURNS)


def whole(file: Path) -> str:
    """Return the text of a whole UTF-8 file, of which gzip may have made a `.gz` file; see `lines`.

    Raises:
        PedigreeError: as `lines` does.
    """
    try:
        with _opened(file) as stream:
            data = stream.read()
        expect_text(data[:HEAD])
        return decoded(data)
    except Unusable as reason:
        raise PedigreeError(f"{file}: {reason}") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise PedigreeError(f"{file} cannot be unpacked ({error}): get another copy") from None


def _opened(file: Path) -> BufferedIOBase:
    return gzip.open(file) if file.name.lower().endswith(GZ) else file.open("rb")


def expect_text(head: bytes) -> None:
    """Check by the first bytes of a file that it may be UTF-8 text.

    Raises:
        Unusable: it is empty, is in UTF-16, is another kind of file, or is a pointer, as of Git LFS.
    """
    not_pointer(head)
    if not head.removeprefix(codecs.BOM_UTF8):
        raise Unusable("it is empty: put text there, or remove the file")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head[:4].count(0) in (2, 3):
        raise Unusable("it is in UTF-16 or UTF-32: save it as UTF-8")
    if other := formats.named(head, formats.OTHER):
        raise Unusable(f"{other}, and no text: save it as text in UTF-8")


def decoded(data: bytes) -> str:
    """Return the text of a line or of a whole file, without a byte-order mark.

    Raises:
        Unusable: it is not UTF-8, or has a NUL byte.
    """
    if (at := data.find(0)) >= 0:
        raise Unusable(f"byte {at + 1} is NUL: save the file as UTF-8 text")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise Unusable(f"byte {error.start + 1} is not UTF-8: save the file as UTF-8") from None


def expect_usable(text: str) -> str:
    """Return a sample's text without white space at its ends.

    Raises:
        Unusable: nothing remains, or characters of it were lost.
    """
    stripped = text.strip()
    if not stripped:
        raise Unusable("the text is empty")
    if REPLACEMENT in stripped:
        raise Unusable("U+FFFD stands for characters that were lost when the text was converted")
    return stripped
