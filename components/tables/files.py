"""Tables in the raw folder: CSV, TSV and Parquet, read in blocks in which every cell is text."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.csv as pacsv  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from components.datasets import formats, raw_files
from components.datasets.ingest import Unusable, not_pointer
from components.display import brief
from components.errors import PedigreeError

GZ = ".gz"
CSV, TSV, PARQUET = ".csv", ".tsv", ".parquet"
SUFFIXES = (CSV, TSV, PARQUET)
"""Suffixes of tables; .gz may follow the first two."""
EXCEL = (".xlsx", ".xls", ".xlsm", ".ods")
MOST_COLUMNS = 2_000
"""Most columns of a table."""
BLOCK = 2**22
"""Bytes of a CSV that are read at once."""
ROWS = 65_536
"""Rows of a Parquet file that are read at once."""
SAMPLED = 1_000
"""First lines by which the delimiter is recognised; the reader checks all others."""
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
"""Delimiters by the name that a parameter has for them."""
Delimiter = Literal["auto", "comma", "semicolon", "tab", "bar"]
Encoding = Literal["utf-8", "cp1252"]


class Block(NamedTuple):
    """Consecutive rows of a table."""

    first: int
    """Place of its first row in the table, from 0."""
    cells: pa.RecordBatch
    """A column of text for each column of the table."""


@dataclass(frozen=True)
class Table:
    """A file whose columns are known."""

    file: Path
    columns: tuple[str, ...]
    delimiter: str
    """Empty for Parquet."""
    encoding: str

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[Block]:
        """Yield all rows in blocks, with some of the columns, or all.

        Raises:
            PedigreeError: a row has another number of cells, or the file is damaged.
        """
        chosen = list(self.columns if columns is None else columns)
        first = 0
        for cells in _parquet(self, chosen) if not self.delimiter else _csv(self, chosen):
            yield Block(first, cells)
            first += cells.num_rows

    def at(self, row: int) -> str:
        """Return where a row is; see `at`."""
        return at(self.file.name, row)


def at(file: str, row: int) -> str:
    """Return where a row is: `train.csv:17`, a line for each row and one for the header; of Parquet, `:row 16`.

    Args:
        file: Name of the file.
        row: Place of the row in it, from 0.
    """
    return next(each_at(file, [row]))


def each_at(file: str, rows: Iterable[int]) -> Iterator[str]:
    """Yield where each row of a file is; see `at`."""
    # Once per file: a test split can have millions of rows.
    before, first = (f"{file}:row ", 1) if _suffix(file) == PARQUET else (f"{file}:", 2)
    return (f"{before}{row + first}" for row in rows)


def find(raw: Path) -> dict[str, list[Path]]:
    """Return the files of each split, such as those called train.csv and test.parquet; or all of them, as train.

    Raises:
        PedigreeError: there are none, only some are named as a split, or one is a spreadsheet.
    """
    names = sorted(name for name, is_folder in raw_files.visible(raw) if not is_folder)
    if sheets := [name for name in names if Path(name.lower()).suffix in EXCEL]:
        raise PedigreeError(f"{raw / sheets[0]} is a spreadsheet: save it as CSV or Parquet")
    for file in sorted(raw.glob("*")):
        if _suffix(file.name) in SUFFIXES:
            raw_files.expect_target(file)
    tables = [name for name in names if _suffix(name) in SUFFIXES]
    if not tables:
        raise PedigreeError(f"{raw} has no table: put a file there whose name ends with .csv, .tsv or .parquet")
    splits = {name: raw_files.split_of(Path(name.removesuffix(GZ)).stem) for name in tables}
    if not any(splits.values()):
        return {"train": [raw / name for name in tables]}
    if strays := [name for name, split in splits.items() if split is None]:
        named = next(name for name, split in splits.items() if split)
        raise PedigreeError(
            f"{raw} has {named}, which is named as a split, and {raw_files.listed(strays)}, which is not: name all "
            "tables as splits, such as train.csv and test.csv, or none"
        )
    if "train" not in splits.values():
        raise PedigreeError(f"{raw} has no table for training: add one, such as train.csv")
    found = {split: [raw / name for name in tables if splits[name] == split] for split in raw_files.SPLITS}
    return {split: files for split, files in found.items() if files}


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(GZ)).suffix


def opened(file: Path, delimiter: Delimiter, encoding: Encoding) -> Table:
    """Read the columns of a table.

    A first column without a name, as pandas writes one for the index, is called `unnamed`.

    Raises:
        PedigreeError: the file is no such table, its delimiter is in doubt, or names are missing or repeated.
    """
    if _suffix(file.name) == PARQUET:
        return Table(file, _unique(file, _parquet_columns(file)), "", "utf-8")
    known = _encoding(file, encoding)
    lines = _first_lines(file, known)
    if delimiter != "auto":
        chosen = NAMES[delimiter]
    elif _suffix(file.name) == TSV:
        chosen = "\t"
    else:
        chosen = _delimiter(file, lines)
    header = next(csv.reader(lines, delimiter=chosen), [])
    names = [name.strip() for name in header]
    if names and all(re.fullmatch(r"[-+.,\d]+", name) for name in names):
        raise PedigreeError(
            f"{file}:1: the first line, which should name the columns, holds numbers only: add a line with names"
        )
    if names and not names[0]:
        names[0] = "unnamed"
    return Table(file, _unique(file, names), chosen, known)


def _unique(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    if len(names) > MOST_COLUMNS:
        raise PedigreeError(
            f"{file}:1: {len(names):,} columns are over {MOST_COLUMNS:,}: leave out those that are not needed"
        )
    if len(names) < 2:
        raise PedigreeError(f"{file}:1: there is one column, and a table needs at least two: set prepare.delimiter")
    if double := [name for name, count in Counter(names).items() if count > 1]:
        what = f"two columns are called {brief(double[0])}" if double[0] else "two columns have no name"
        raise PedigreeError(f"{file}:1: {what}: rename one of them")
    if "" in names:
        raise PedigreeError(f"{file}:1: column {names.index('') + 1} has no name: give it one")
    return tuple(names)


def same_columns(tables: Mapping[str, Sequence[Table]]) -> tuple[str, ...]:
    """Return the columns of all tables, in the order of the first.

    Raises:
        PedigreeError: a table lacks one, or has another one.
    """
    every = [table for own in tables.values() for table in own]
    first = every[0]
    for other in every[1:]:
        lacking = [name for name in first.columns if name not in other.columns]
        further = [name for name in other.columns if name not in first.columns]
        if lacking or further:
            what = (
                f"lacks the column {brief(lacking[0])}" if lacking else f"also has the column {brief(further[0])}"
            )
            raise PedigreeError(f"{other.file}:1: it {what}, unlike {first.file}: give both the same columns")
    return first.columns


def _encoding(file: Path, asked: Encoding) -> str:
    with _bytes(file) as stream:
        try:
            head = stream.read(1024)
        except (OSError, EOFError) as error:
            raise PedigreeError(f"{file} cannot be read ({error}): get another copy") from None
    try:
        not_pointer(head)
    except Unusable as reason:
        raise PedigreeError(f"{file}: {reason}") from None
    if not head.strip():
        raise PedigreeError(f"{file} is empty: put a table there, or remove the file")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if other := formats.named(head, formats.OTHER):
        raise PedigreeError(f"{file} is {other}, and no table: save it as CSV or Parquet")
    return "utf-8-sig" if head.startswith(codecs.BOM_UTF8) else asked


def _bytes(file: Path) -> Any:
    return gzip.open(file) if file.name.lower().endswith(GZ) else file.open("rb")


def _text(file: Path, encoding: str) -> Any:
    return codecs.getreader(encoding)(_bytes(file))


def _first_lines(file: Path, encoding: str) -> list[str]:
    try:
        with _text(file, encoding) as stream:
            return list(islice(stream, SAMPLED))
    except UnicodeDecodeError as error:
        raise PedigreeError(_undecodable(file, error)) from None


def _undecodable(file: Path, error: UnicodeDecodeError) -> str:
    return f"{file}: byte {error.start} is not UTF-8: save the file as UTF-8, or set prepare.encoding: cp1252"


def _delimiter(file: Path, lines: Sequence[str]) -> str:
    """Return the delimiter with which all lines have equally many cells, at least two.

    Raises:
        PedigreeError: there is none, or there are several.
    """
    counts = {each: _cells(lines, each) for each in DELIMITERS}
    constant = [each for each, found in counts.items() if len(found) == 1 and min(found) > 1]
    if len(constant) == 1:
        return constant[0]
    if constant:
        raise PedigreeError(
            f"{file}: {' and '.join(DELIMITERS[each] for each in constant)} could each be between its cells: set "
            "prepare.delimiter"
        )
    # A row with too few or too many cells is found by the reader, which names its line.
    header = {each: len(next(csv.reader(lines, delimiter=each), [])) for each in DELIMITERS}
    most = max(header, key=lambda each: header[each])
    if header[most] > 1 and counts[most].most_common(1)[0][0] == header[most]:
        return most
    raise PedigreeError(
        f"{file}: no delimiter gives all lines equally many cells: set prepare.delimiter, or correct the file"
    )


def _cells(lines: Sequence[str], delimiter: str) -> Counter[int]:
    """Return how many rows have which number of cells; the last, which may be cut, is left out."""
    whole = lines[:-1] if len(lines) == SAMPLED else lines
    return Counter(len(row) for row in csv.reader(whole, delimiter=delimiter) if row)


def _csv(table: Table, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    encoding = "utf-8" if table.encoding == "utf-8-sig" else table.encoding
    read = pacsv.ReadOptions(
        block_size=BLOCK, column_names=list(table.columns), skip_rows=1, encoding=encoding, use_threads=True
    )
    parse = pacsv.ParseOptions(delimiter=table.delimiter, newlines_in_values=True)
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(table.columns, pa.string()),
        include_columns=list(columns),
        strings_can_be_null=False,
        null_values=[],
    )
    try:
        with pacsv.open_csv(table.file, read, parse, convert) as reader:
            yield from reader
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise PedigreeError(_problem(table) or f"{table.file} cannot be read as CSV: {_plain(error)}") from None
    except OSError as error:
        raise PedigreeError(f"{table.file} cannot be read ({_plain(error)}): get another copy") from None


def _plain(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _problem(table: Table) -> str:
    """Return where a row has another number of cells than the header, or is not text."""
    wanted = len(table.columns)
    try:
        with _text(table.file, table.encoding) as stream:
            reader = csv.reader(stream, delimiter=table.delimiter)
            line = 1
            for row in reader:
                if row and len(row) != wanted:
                    return (
                        f"{table.file}:{line}: {len(row)} cells under {wanted} columns, with "
                        f"{DELIMITERS[table.delimiter]} between cells: put cells that have one in their text "
                        "between quotation marks, and give each row all its cells"
                    )
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        return _undecodable(table.file, error)
    except csv.Error as error:
        return f"{table.file}: {error}: correct the quotation marks"
    return ""


def _parquet_columns(file: Path) -> list[str]:
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise PedigreeError(f"{file} is not Parquet ({_plain(error)}): get another copy") from None
    for field in schema:
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            raise PedigreeError(
                f"{file}: the column {brief(field.name)} holds {field.type}, and a cell should be a number, a "
                "text or a date: leave it out"
            )
    return list(schema.names)


def _parquet(table: Table, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(table.file) as file:
            for batch in file.iter_batches(ROWS, columns=list(columns)):
                texts = [_as_text(batch.column(name)) for name in columns]
                yield pa.record_batch(texts, names=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise PedigreeError(f"{table.file} cannot be read ({_plain(error)}): get another copy") from None


def _as_text(column: pa.Array) -> pa.Array:
    """Return a column as the text that a CSV would have, with empty cells for nulls and NaN."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    elif pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("s", column.type.tz), safe=False)
    return pc.fill_null(pc.cast(column, pa.string()), "")
