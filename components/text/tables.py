"""Tables of texts: CSV, TSV and JSON Lines, maybe compressed by gzip, read row by row as they are written.

No word becomes a missing value: "NA" and "null" are words. In a TSV, a quotation mark is a character like any
other, as in GLUE's files (Wang et al. 2018, arXiv:1804.07461); in a CSV it encloses cells (RFC 4180).
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from components.datasets import raw_files
from components.datasets.ingest import Unusable
from components.display import brief
from components.errors import PedigreeError
from components.text.lines import GZ, LONGEST, lines

CSV, TSV, JSONL = ".csv", ".tsv", (".jsonl", ".ndjson")
SUFFIXES = (CSV, TSV, *JSONL)
"""Suffixes of tables, which `.gz` may follow."""
VERSION = re.compile(r"-v\d+(\.\d+)*$")
"""What follows a split's name in SQuAD's files: train-v1.1.json, dev-v2.0.json."""
FIRST = 1000
"""Lines of JSON that tell the columns."""
LARGEST = 2**30
"""Largest table in bytes, as rows are held in memory."""


class Row(NamedTuple):
    """A row that has every column of its table, or a line of JSON."""

    line: int
    """The line of the file on which it begins, from 1."""
    cells: Mapping[str, Any]
    """By column: strings, or of JSON any value."""
    swallowed: tuple[Mapping[str, str] | None, ...] = ()
    """If the row has several lines, and some of them, not only the last, would be rows by themselves: each line as
    such a row, without quotation marks, or None.

    A stray quotation mark may have made one row of them. Who knows what a column may hold can say.
    """


class BadRow(NamedTuple):
    """A row that cannot be used."""

    line: int
    reason: str


@dataclass(frozen=True)
class Table:
    """A table whose header has been read."""

    file: Path
    columns: tuple[str, ...]
    """Names in the first line, or without a header the numbers 1, 2, …; of JSON, the keys of the first objects."""
    header: bool
    delimiter: str
    """Empty for JSON Lines."""

    def rows(self) -> Iterator[Row | BadRow]:
        """Yield the rows; blank lines are none.

        Raises:
            PedigreeError: the file cannot be read as `lines` reads it, or a quotation mark is out of place.
        """
        if not self.delimiter:
            yield from _json(self.file)
        elif self.delimiter == "\t":
            yield from self._fields(_split(self.file))
        else:
            yield from self._fields(_quoted(self.file, self.delimiter))

    def _fields(self, records: Iterator[_Record]) -> Iterator[Row | BadRow]:
        if self.header:
            next(records)
        wanted = len(self.columns)
        for line, cells, alone in records:
            if isinstance(cells, str):
                yield BadRow(line, cells)
            elif len(cells) != wanted:
                yield BadRow(line, _misfit(len(cells), wanted, self.delimiter))
            else:
                alike = [self._row(each) if len(each) == wanted else None for each in alone]
                yield Row(line, self._row(cells), tuple(alike) if any(alike[:-1]) else ())

    def _row(self, cells: Sequence[str]) -> dict[str, str]:
        return dict(zip(self.columns, cells, strict=True))

    def at(self, row: Row | BadRow) -> str:
        """Return where a row is, such as `train.csv:12`."""
        return f"{self.file.name}:{row.line}"


_Record = tuple[int, Sequence[str] | str, Sequence[Sequence[str]]]
"""Line, cells or why there are none, and the cells of each line by itself if there are several."""


def _misfit(found: int, wanted: int, delimiter: str) -> str:
    name = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}[delimiter]
    remedy = "" if delimiter == "\t" else ": put cells that have one in their text between quotation marks"
    return f"{found} cells under {wanted} columns, with {name} between cells{remedy}"


JOINED = "quotation marks make one row of lines that each are one: double a stray quotation mark"
"""Why a row that swallowed others is rejected."""
TOO_LONG = f"over {LONGEST:,} bytes in a line"


def _split(file: Path) -> Iterator[_Record]:
    for number, text in lines(file):
        if text is None:
            yield number, TOO_LONG, ()
        elif text:
            yield number, text.split("\t"), ()


def _quoted(file: Path, delimiter: str) -> Iterator[_Record]:
    csv.field_size_limit(LONGEST)
    seen: list[str] = []  # the lines of the present record
    skipped: list[int] = []

    def source() -> Iterator[str]:
        for number, text in lines(file):
            if text is None and seen:
                raise PedigreeError(f"{file}:{number}: {TOO_LONG}, inside quotation marks: divide the text")
            if text is None:
                skipped.append(number)
            seen.append(text or "")
            yield f"{text or ''}\n"

    reader = csv.reader(source(), delimiter=delimiter, strict=True)
    begin = 1
    try:
        for cells in reader:
            if skipped:
                yield skipped.pop(), TOO_LONG, ()
            elif cells:
                alone = [each.replace('"', "").split(delimiter) for each in seen] if len(seen) > 1 else []
                yield begin, cells, alone
            begin = reader.line_num + 1
            seen.clear()
    except csv.Error as error:
        if any("\r" in each for each in seen):
            raise PedigreeError(
                f"{file}:{begin}: the row that begins here has a carriage return within a line: remove it, or "
                "enclose its cell in quotation marks"
            ) from None
        raise PedigreeError(
            f"{file}:{begin}: the row that begins here is not CSV ({error}): a quotation mark inside a cell has to "
            "be doubled, and the cell enclosed in quotation marks"
        ) from None


def _json(file: Path) -> Iterator[Row | BadRow]:
    for number, text in lines(file):
        if text is None:
            yield BadRow(number, TOO_LONG)
        elif text.strip():
            try:
                cells = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield BadRow(number, f"not JSON: {str(error).partition(':')[0]}")
                continue
            if not isinstance(cells, dict):
                yield BadRow(number, "not a JSON object")
            elif "\\u" in text and _is_torn(cells):
                yield BadRow(number, "one of its characters is half of a surrogate pair: write whole characters")
            else:
                yield Row(number, cells)


def _is_torn(cells: Mapping[str, Any]) -> bool:
    """Return whether escapes of JSON made characters that no file of text can have."""
    try:
        json.dumps(cells, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def suffix_of(file: Path) -> str:
    """Return the suffix that names a file's format, in small letters and without `.gz`."""
    return Path(file.name.lower().removesuffix(GZ)).suffix


def opened(file: Path, header: bool = True) -> Table:
    """Read the columns of a table.

    A CSV whose first line has semicolons or tabs, but no commas, has these between its cells.

    Args:
        file: A file with one of the `SUFFIXES`.
        header: Whether the first line of a CSV or TSV names the columns.

    Raises:
        PedigreeError: the file is too large, has no rows, has a column without a name, or two of the same name.
    """
    if file.stat().st_size > LARGEST:
        raise PedigreeError(f"{file}: over {LARGEST / 2**30:g} GiB: divide the data set")
    if suffix_of(file) in JSONL:
        first = [row.cells for row in islice(_json(file), FIRST) if isinstance(row, Row)]
        if not first:
            raise PedigreeError(f"{file} has no JSON object on a line of its own: write one for each sample")
        return Table(file, tuple(dict.fromkeys(name for cells in first for name in cells)), False, "")
    delimiter = "\t" if suffix_of(file) == TSV else _delimiter(file)
    records = _split(file) if delimiter == "\t" else _quoted(file, delimiter)
    line, cells, _ = next(records, (1, "no cell", ()))
    if isinstance(cells, str):
        raise PedigreeError(f"{file}:{line}: {cells} where the columns should be")
    if not header:
        return Table(file, tuple(str(number) for number in range(1, len(cells) + 1)), False, delimiter)
    columns = tuple(cell.strip() for cell in cells)
    if double := [name for name, count in Counter(columns).items() if count > 1]:
        what = f"two columns are called {brief(double[0])}" if double[0] else "two columns have no name"
        raise PedigreeError(f"{file}:{line}: {what}: rename one of them")
    return Table(file, columns, True, delimiter)


def _delimiter(file: Path) -> str:
    first = next((text for _, text in lines(file) if text), "")
    if "," in first:
        return ","
    if "\t" in first:
        raise PedigreeError(f"{file}:1: tabs are between its cells: rename it to {file.stem}{TSV}")
    return ";" if ";" in first else ","


def find(raw: Path, suffixes: Sequence[str] = SUFFIXES) -> dict[str, Path]:
    """Return the file of each split, such as train.csv, valid.csv and test.csv; or a single file, as train.

    Names are those of `raw_files.SPLITS`, in any case. Beside files of splits, others are left out.

    Args:
        raw: The raw folder.
        suffixes: What to look for.

    Raises:
        PedigreeError: two files are the same split, several are none, or a file is a link to nothing.
    """
    names = sorted(name for name, is_folder in raw_files.visible(raw) if not is_folder)
    files = [raw / name for name in names if suffix_of(Path(name)) in suffixes]
    found: dict[str, Path] = {}
    for file in sorted(raw.glob("*")):
        if suffix_of(file) in suffixes and split_of(file):
            raw_files.expect_target(file)
    for file in files:
        if (split := split_of(file)) and (other := found.setdefault(split, file)) != file:
            raise PedigreeError(f"{other} and {file} are each the split {split}: remove one of them")
    if found:
        return {split: found[split] for split in raw_files.SPLITS if split in found}
    if len(files) > 1:
        raise PedigreeError(
            f"{raw} has several tables, {raw_files.listed([file.name for file in files])}: name them as splits, "
            f"such as train{suffix_of(files[0])}, or leave one there"
        )
    return {"train": files[0]} if files else {}


def split_of(file: Path) -> str | None:
    """Return the split that a file's name means, without suffixes and a version such as SQuAD's -v1.1, or None."""
    return raw_files.split_of(VERSION.sub("", Path(file.name.lower().removesuffix(GZ)).stem))


def text_in(row: Row, column: str) -> str:
    """Return the text of a cell; numbers of JSON are written out, and so are true and false.

    Raises:
        Unusable: the column is missing, or holds no text.
    """
    if column not in row.cells:
        raise Unusable(f"it has no {brief(column)}")
    cell = row.cells[column]
    if isinstance(cell, str):
        return cell
    if cell is None or isinstance(cell, list | dict):
        raise Unusable(f"{brief(column)} holds {'null' if cell is None else type(cell).__name__}, and no text")
    return json.dumps(cell)
