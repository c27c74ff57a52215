"""The raw folder of text files: validation, division into splits, and reading in blocks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from components.datasets.ingest import Unusable, not_pointer
from components.datasets.raw_files import SPLITS, expect_target, listed, split_of, visible
from components.display import printable_name
from components.errors import PedigreeError
from components.text.params import TextPrepareParams

BLOCK = 2**20
"""Characters or bytes in memory at once; more if a line is longer."""
HEAD = 100
"""Bytes by which a pointer to a file is known."""
MARK = b"\xef\xbb\xbf"
"""The byte-order mark that some editors write before UTF-8; it is no part of the text."""
GOLDEN = 0.6180339887498949
"""Positions at multiples of this share, modulo 1, are far from each other and never the same."""


@dataclass(frozen=True)
class Piece:
    """The part of a file from character `start` up to character `stop`."""

    file: Path
    start: int
    stop: int

    def blocks(self) -> Iterator[str]:
        """Yield the text in blocks that end with a line, unless a line is too long."""
        rest = ""
        with self.file.open(encoding="utf-8", newline="") as file:
            for _ in self._read(file, self.start):
                pass
            for block in self._read(file, self.stop - self.start):
                lines, end, rest_of_line = (rest + block).rpartition("\n")
                rest = rest_of_line
                if end:
                    yield lines + end
                elif len(rest) > BLOCK:  # a long line: cut it at a space if there is one
                    words, space, rest = rest.rpartition(" ")
                    yield words + space or rest
                    rest = rest if space else ""
        if rest:
            yield rest

    def _read(self, file: TextIO, characters: int) -> Iterator[str]:
        """Yield the next characters of the open file in blocks."""
        while characters:
            block = file.read(min(BLOCK, characters))
            if not block:
                raise PedigreeError(f"{self.file} became shorter while it was read: run prepare again")
            characters -= len(block)
            yield block


@dataclass(frozen=True)
class Text:
    """The text of a split: one or more pieces, read one after the other."""

    pieces: tuple[Piece, ...]

    @property
    def characters(self) -> int:
        """Number of characters."""
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def names(self) -> str:
        """The files that it is in, for messages."""
        return listed([str(piece.file) for piece in self.pieces])

    @property
    def ranges(self) -> str:
        """Where in the files it is, in characters counted from 1."""
        return listed(
            [f"characters {piece.start + 1:,} to {piece.stop:,} of {piece.file.name}" for piece in self.pieces]
        )

    def blocks(self) -> Iterator[str]:
        """Yield the text in blocks that end with a line or a piece, unless a line is too long."""
        for piece in self.pieces:
            yield from piece.blocks()


def splits(raw: Path, params: TextPrepareParams) -> dict[str, Text]:
    """Return the texts of train, val and test.

    They are train.txt, valid.txt and test.txt, under any of the names in `SPLITS`, in any case; missing ones are
    cut from the end of train.txt. Without train.txt, val and test are cut from the end of the only file, or of all
    files in the order of their names. With `resplit: N`, val and test are a block elsewhere in all these files,
    between ends of lines or files. With `test_share: 0` and no test.txt, test is the same text as val.

    Raises:
        PedigreeError: there is no text, two files are the same split, or one is empty, is not UTF-8, or is only a
            link or a pointer to content that is not there.
    """
    given = _given(raw)
    entire = {split: Text(tuple(map(whole, files))) for split, files in given.items()}
    pool, own = entire["train"], {split: text for split, text in entire.items() if split != "train"}
    if params.resplit and own:
        pool, own = Text(tuple(piece for text in entire.values() for piece in text.pieces)), {}
    shares = {
        "val": 0.0 if "val" in own else params.val_share,
        "test": 0.0 if "test" in own else params.test_share,
    }
    texts = _cut(pool, shares, params.resplit) | own
    if not texts["test"].characters:
        texts["test"] = texts["val"]
    for split, text in texts.items():
        if text.characters < 2:
            raise PedigreeError(f"{pool.names}: the part for {split} has fewer than two characters: add text")
    return texts


def survey(raw: Path, _: TextPrepareParams) -> list[Path]:
    """Return the files of text without opening them.

    Raises:
        PedigreeError: there are none, or they cannot be divided into splits.
    """
    return [file for files in _given(raw).values() for file in files]


def has_own(raw: Path, split: str) -> bool:
    """Return whether the folder has a text of its own for a split."""
    return split in _given(raw)


def _given(raw: Path) -> dict[str, list[Path]]:
    """Return the files of each split that has some; those of train are to be cut if others have none."""
    for file in raw.glob("*"):
        if file.suffix.lower() == ".txt" and split_of(file.stem):
            expect_target(file)
    files = [file for file in _visible(raw) if file.suffix.lower() == ".txt"]
    named = _by_split(files)
    if not files:
        raise PedigreeError(f"{raw} has no text: put .txt files there, maybe train.txt, valid.txt and test.txt")
    if "train" in named and len(files) > 1:
        return {split: [file] for split, file in named.items()}
    if named and len(files) > 1:
        raise PedigreeError(
            f"{raw} has {listed([file.name for file in files])} and no train.txt: add it, or rename "
            f"{listed([file.name for file in named.values()])}, so that the splits are cut from all files"
        )
    return {"train": files}


def _visible(raw: Path) -> Iterator[Path]:
    yield from (raw / name for name in sorted(name for name, _ in visible(raw)) if (raw / name).is_file())


def strays(raw: Path, texts: Mapping[str, Text]) -> list[str]:
    """Return the printable names of what is in the raw folder and in no split, such as folders."""
    used = {piece.file.name for text in texts.values() for piece in text.pieces}
    return sorted(printable_name(name) for name, _ in visible(raw) if name not in used)


def _by_split(files: Sequence[Path]) -> dict[str, Path]:
    """Return the file of each split that has one, in the order of `SPLITS`."""
    found: dict[str, Path] = {}
    for file in files:
        split = split_of(file.stem)
        if split and (other := found.setdefault(split, file)) != file:
            raise PedigreeError(
                f"{other} and {file} are each the text of {split}: put them into one file, or rename one"
            )
    return {split: found[split] for split in SPLITS if split in found}


def whole(file: Path) -> Piece:
    """Return all of a file, except a byte-order mark."""
    with file.open("rb") as opened:
        begin = int(opened.read(len(MARK)) == MARK)
    return Piece(file, begin, characters(file))


def _cut(pool: Text, shares: Mapping[str, float], number: int) -> dict[str, Text]:
    """Cut val and test from the end of a text; or, with a number, from elsewhere in it."""
    length = pool.characters
    first, last = int(length * (1 - (shares["val"] + shares["test"]))), length
    middle = int(length * (1 - shares["test"]))
    if number:
        back = first - int(number * GOLDEN % 1 * first)
        first, middle, last = first - back, middle - back, last - back
    if number or len(pool.pieces) > 1:  # an only file is cut where it always was
        near = max(1, (last - first) // 10)
        first, middle, last = (_border(pool.pieces, position, near) for position in (first, middle, last))
    before, after = _between(pool, 0, first), _between(pool, last, length)
    return {
        "train": Text(before.pieces + after.pieces),
        "val": _between(pool, first, middle),
        "test": _between(pool, middle, last),
    }


def _between(pool: Text, start: int, stop: int) -> Text:
    """Return the part of a text from character `start` up to character `stop`."""
    pieces, before = [], 0
    for piece in pool.pieces:
        length = piece.stop - piece.start
        first, last = max(start - before, 0), min(stop - before, length)
        if first < last:
            pieces.append(Piece(piece.file, piece.start + first, piece.start + last))
        before += length
    return Text(tuple(pieces))


def _border(pieces: Sequence[Piece], position: int, near: int) -> int:
    """Return where the line or piece at a position in a text ends, or the position itself if that is not near."""
    before = 0
    for piece in pieces:
        length = piece.stop - piece.start
        if before < position < before + length:
            offset = piece.start + position - before
            until = min(offset + near, piece.stop)
            following = "".join(Piece(piece.file, offset - 1, until).blocks())
            if (end := following.find("\n")) >= 0:
                return position + end
            return before + length if until == piece.stop else position
        before += length
    return position


def characters(file: Path) -> int:
    """Count a file's characters.

    Raises:
        PedigreeError: the file is empty, is not UTF-8, contains a NUL byte, or is a pointer, as of Git LFS; the
            message has line and byte.
    """
    count = lines = offset = 0
    rest = b""
    with file.open("rb") as stream:
        _expect_content(file, stream.read(HEAD))
        stream.seek(0)
        while True:
            block = stream.read(BLOCK)
            data = rest + block
            text, rest = _decoded(file, data, lines, offset, last=not block)
            count += len(text)
            lines += text.count("\n")
            offset += len(data) - len(rest)
            if not block:
                break
    if not count:
        raise PedigreeError(f"{file} is empty: put text there, or remove the file")
    return count


def _expect_content(file: Path, head: bytes) -> None:
    try:
        not_pointer(head)
    except Unusable as reason:
        raise PedigreeError(f"{file} is {reason}") from None


def _decoded(file: Path, data: bytes, lines: int, offset: int, last: bool) -> tuple[str, bytes]:
    """Return the text of complete characters, and the bytes of an incomplete one at the end."""
    cut, what = len(data), ""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        cut = error.start
        if last or error.reason != "unexpected end of data":
            what = "is not UTF-8"
    if (nul := data.find(b"\0", 0, cut)) >= 0:
        cut, what = nul, "is a NUL byte"
    if what:
        line = lines + data[:cut].count(b"\n") + 1
        raise PedigreeError(f"{file}:{line}: byte {offset + cut} {what}: save the file as UTF-8 text")
    return data[:cut].decode(), data[cut:]
