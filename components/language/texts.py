"""The raw folder's text files: checked, counted in characters, cut into splits, read in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.errors import PedigreeError
from components.language.params import LanguagePrepareParams

BLOCK = 2**20
"""Characters, or bytes, in memory at once; more where a line is longer."""
NAMES = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}


@dataclass(frozen=True)
class Text:
    """A part of a file, from one character up to another."""

    file: Path
    start: int
    stop: int

    def blocks(self) -> Iterator[str]:
        """Yield the text piece by piece, each ending with a line where lines are not too long."""
        left, rest = self.stop - self.start, ""
        with self.file.open(encoding="utf-8", newline="") as file:
            _skip(file.read, self.start)
            while left:
                block = file.read(min(BLOCK, left))
                left -= len(block)
                whole, end, rest_of_line = (rest + block).rpartition("\n")
                rest = rest_of_line
                if end:
                    yield whole + end
                elif len(rest) > BLOCK:  # a line without end: cut it at a space if there is one
                    whole, space, rest = rest.rpartition(" ")
                    yield whole + space or rest
                    rest = rest if space else ""
        if rest:
            yield rest


def _skip(read: object, characters: int) -> None:
    assert callable(read)
    while characters:
        characters -= len(read(min(BLOCK, characters)))


def splits(raw: Path, params: LanguagePrepareParams) -> dict[str, Text]:
    """Return the texts of train, val and test.

    They are train.txt, valid.txt and test.txt; what is missing is cut from the end of train.txt, or of the only
    file there is. With `test_share: 0` and no test.txt, val is test, too.

    Raises:
        PedigreeError: there is no text, it is not UTF-8, or a file or split is empty.
    """
    files = {file.name: file for file in _visible(raw) if file.suffix == ".txt"}
    first = files.get(NAMES["train"]) or (next(iter(files.values())) if len(files) == 1 else None)
    if first is None:
        found = f"has {', '.join(list(files)[:5])} and no train.txt" if files else "has no text"
        raise PedigreeError(f"{raw} {found}: put one .txt file there, or train.txt, valid.txt and test.txt")
    given = {split: files[name] for split, name in NAMES.items() if name in files and files[name] != first}
    whole = {split: Text(file, 0, characters(file)) for split, file in given.items()}
    shares = {
        "val": 0.0 if "val" in given else params.val_share,
        "test": 0.0 if "test" in given else params.test_share,
    }
    texts = _cut(first, characters(first), shares) | whole
    if texts["test"].start == texts["test"].stop:
        texts["test"] = texts["val"]
    for split, text in texts.items():
        if text.stop - text.start < 2:
            raise PedigreeError(f"{text.file}: the part for {split} has fewer than two characters: add text")
    return texts


def _visible(raw: Path) -> Iterator[Path]:
    if raw.is_dir():
        yield from (file for file in sorted(raw.iterdir()) if file.is_file() and not file.name.startswith("."))


def strays(raw: Path, texts: dict[str, Text]) -> list[str]:
    """Return the files of the raw folder that are in no split."""
    used = {text.file for text in texts.values()}
    return [file.name for file in _visible(raw) if file not in used]


def _cut(file: Path, length: int, shares: dict[str, float]) -> dict[str, Text]:
    test = int(length * (1 - shares["test"]))
    val = int(length * (1 - (shares["val"] + shares["test"])))
    return {"train": Text(file, 0, val), "val": Text(file, val, test), "test": Text(file, test, length)}


def characters(file: Path) -> int:
    """Count a file's characters.

    Raises:
        PedigreeError: it is empty, is not UTF-8, or has a NUL byte; with line and byte.
    """
    count = lines = offset = 0
    rest = b""
    with file.open("rb") as stream:
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


def _decoded(file: Path, data: bytes, lines: int, offset: int, last: bool) -> tuple[str, bytes]:
    """Return the text of whole characters, and the bytes of one that is cut at the end."""
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
