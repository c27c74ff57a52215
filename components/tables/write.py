"""Tables -> arrays of the splits, in bounded memory: two passes over the files, and one over arrays.

The first pass gathers a `Profile` of each column, from which its type is decided. The second writes numbers and
indices of categories in the order of the files, and collects a hash and the target of each row, by which rows are
divided. Then the arrays are copied into those of the splits; only now is it known which categories training has.
Memory holds a few numbers for each row, and the different values of each column of categories, at most 10,000.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.special import ndtri

from components.contracts import Part
from components.datasets import arrays, raw_files
from components.display import brief
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tables import cells, columns, divide
from components.tables.columns import LEAST, RARE, SPECIAL, UNSEEN, Column, Unreadable
from components.tables.divide import NONE, PLACES, Divided
from components.tables.facts import CATEGORY, LABEL, NUMBER, ROW, UNIT
from components.tables.files import Block, Table
from components.tables.params import TablePrepareParams
from components.tables.profile import Profile, hashed

log = logging.getLogger("pedigree.prepare")

CHUNK = 65_536
"""Rows that are copied at once."""
QUANTILES = 48
"""Intervals between the quantiles of a number."""
SAMPLED = 200_000
"""Most training rows from which quantiles are computed, evenly spaced."""
Tables = Mapping[str, Sequence[Table]]
"""The tables of each split."""


def blocks(tables: Tables, names: Sequence[str], doing: str) -> Iterator[tuple[str, Table, Block]]:
    """Yield the rows of all tables in blocks, with their split, and log how many there were so far."""
    progress, done = Progress(log), 0
    for split, own in tables.items():
        for table in own:
            for block in table.blocks(names):
                yield split, table, block
                done += block.cells.num_rows
                progress.say(f"{table.file}: {done:,} rows {doing}")


def profiles(tables: Tables, names: Sequence[str], params: TablePrepareParams) -> dict[str, Profile]:
    """Return what each column holds."""
    found = {name: Profile(name) for name in names}
    for _, _, block in blocks(tables, names, "read"):
        for name, profile in found.items():
            profile.add(block.cells.column(name), params.missing)
    return found


@dataclass(frozen=True)
class Target:
    """What is predicted."""

    name: str
    column: Column
    """How a quantity is read."""
    classes: Sequence[str]
    """Sorted; empty for a quantity."""

    def read(self, texts: pa.Array, missing: Sequence[str]) -> NDArray[np.float64]:
        """Return the label or the quantity of each cell, (N,); NaN for a missing one.

        Raises:
            Unreadable: a cell is no number.
        """
        if not self.classes:
            return columns.numbers(self.column, texts, missing).astype(np.float64)
        own = cells.without_missing(texts, missing).to_pylist()
        places = {name: float(place) for place, name in enumerate(self.classes)}
        return np.array([np.nan if text is None else places[unquoted(text)] for text in own], np.float64)


def unquoted(text: str) -> str:
    """Return a label without quotation marks around it."""
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


@dataclass(frozen=True)
class Encoded:
    """All rows as arrays in the order of the files."""

    folder: Path
    values: Sequence[Sequence[str]]
    """Of each column of categories, the values that have an index."""
    target: NDArray[np.float64]
    """Label or quantity of each row, (N,); NaN if there is none."""
    rows: divide.Rows
    sizes: Mapping[str, int]
    """Rows of each file, in the order in which they were read."""


def encode(
    tables: Tables,
    own: Sequence[Column],
    target: Target,
    seen: Mapping[str, Profile],
    params: TablePrepareParams,
    folder: Path,
) -> Encoded:
    """Write number.npy and category.npy into a folder, and return what rows are divided by.

    Raises:
        PedigreeError: a cell cannot be read, or a row has no group or time.
    """
    numbers = [column for column in own if column.is_number]
    others = [column for column in own if not column.is_number]
    values = [sorted(seen[column.name].counts or ()) for column in others]
    hashes = [_hashes(column, each) for column, each in zip(others, values, strict=True)]
    names = [column.name for column in own] + [target.name] + [name for name in (params.group, params.time) if name]
    collected: list[list[NDArray[np.generic]]] = [[], [], [], [], []]
    sizes = {table.file.name: 0 for own_tables in tables.values() for table in own_tables}
    time_column = _time_column(seen, params, tables) if params.time else None
    with ExitStack() as stack:
        writers = _writers(stack, folder, "", len(numbers), len(others))
        for split, table, block in blocks(tables, names, "converted"):
            size = block.cells.num_rows
            sizes[table.file.name] += size

            def cell(name: str, block: Block = block) -> pa.Array:
                return block.cells.column(name)

            try:
                number = np.empty((size, len(numbers)), np.float32)
                for place, column in enumerate(numbers):
                    number[:, place] = columns.numbers(column, cell(column.name), params.missing)
                label = target.read(cell(target.name), params.missing)
                time = columns.numbers(time_column, cell(params.time), params.missing) if time_column else None
            except Unreadable as reason:
                raise PedigreeError(
                    f"{table.file}, rows {block.first + 1:,} to {block.first + size:,}: {reason}"
                ) from None
            category = np.empty((size, len(others)), np.int32)
            for place, column in enumerate(others):
                category[:, place] = columns.indices(column, values[place], cell(column.name), params.missing)
            keys = _keys(number, category, hashes)
            for name, array in ((NUMBER, number), (CATEGORY, category)):
                if name in writers:
                    writers[name].append(array)
            units = hashed(cells.trimmed(cell(params.group))) if params.group else keys
            _expect_known(table, block, time, params)
            parts = (
                keys,
                units,
                label,
                np.full(size, PLACES[split], np.int8),
                time if time is not None else keys[:0],
            )
            for into, part in zip(collected, parts, strict=True):
                into.append(part)
    keys, units, labels, given, times = (np.concatenate(each) for each in collected)
    strata = np.where(np.isnan(labels), NONE, labels if target.classes else 0).astype(np.int64)
    rows = divide.Rows(keys, units, strata, times.astype(np.float64) if params.time else None, given)
    return Encoded(folder, values, labels, rows, sizes)


def _time_column(seen: Mapping[str, Profile], params: TablePrepareParams, tables: Tables) -> Column:
    where = str(next(table.file for own in tables.values() for table in own))
    found, left, _ = columns.decide(
        {params.time: seen[params.time]}, params.model_copy(update={"allow": [params.time]}), where
    )
    if left or not found[0].is_number:
        raise PedigreeError(f"{where}: the column {brief(params.time)} of prepare.time holds no numbers or dates")
    return found[0]


def _expect_known(table: Table, block: Block, time: NDArray[np.float32] | None, params: TablePrepareParams) -> None:
    if time is not None and np.isnan(time).any():
        at = table.at(block.first + int(np.argmax(np.isnan(time))))
        raise PedigreeError(
            f"{table.file.parent / at}: the row has no {brief(params.time)}, by which rows are divided"
        )


def _writers(stack: ExitStack, folder: Path, split: str, numbers: int, categories: int) -> dict[str, arrays.Writer]:
    """Open the arrays of features; there is none without columns."""
    shapes = {NUMBER: (np.float32, numbers), CATEGORY: (np.int32, categories)}
    return {
        name: stack.enter_context(arrays.Writer(folder / f"{split}{name}.npy", dtype, (width,)))
        for name, (dtype, width) in shapes.items()
        if width
    }


def _hashes(column: Column, values: Sequence[str]) -> NDArray[np.uint64]:
    """Return a hash of each index of a column of categories, which does not depend on other categories."""
    if column.buckets:
        return divide.mixed(np.arange(SPECIAL + column.buckets, dtype=np.uint64), 1)
    special = divide.mixed(np.arange(SPECIAL, dtype=np.uint64), 2)
    return np.concatenate([special, hashed(pa.array(values, pa.string()))])


def _keys(
    number: NDArray[np.float32], category: NDArray[np.int32], hashes: Sequence[NDArray[np.uint64]]
) -> NDArray[np.uint64]:
    """Return a hash of each row's features."""
    keys = np.zeros(len(number), np.uint64)
    # All kinds of NaN are one, and so are 0 and -0.
    plain = np.where(np.isnan(number), np.float32(np.nan), number + np.float32(0))
    for place in range(number.shape[1]):
        bits = np.ascontiguousarray(plain[:, place]).view(np.uint32).astype(np.uint64)
        keys = divide.mixed(keys ^ bits, place)
    for place in range(category.shape[1]):
        keys = divide.mixed(keys ^ hashes[place][category[:, place]], number.shape[1] + place)
    return keys


@dataclass(frozen=True)
class Written:
    """The arrays of the splits."""

    parts: Mapping[str, Part]
    columns: Sequence[Column]
    """With the categories, quantiles and missing cells of the training rows."""


def write(out: Path, encoded: Encoded, divided: Divided, own: Sequence[Column], regression: bool) -> Written:
    """Write each split's features, target and places into the folder `out`."""
    numbers = [column for column in own if column.is_number]
    others = [column for column in own if not column.is_number]
    split = divided.split
    known = _open(encoded.folder)
    train = split == PLACES["train"]
    others, lookups = _with_categories(others, encoded.values, known.get(CATEGORY), train)
    dtype = np.dtype(np.float32 if regression else np.int64)
    target = np.nan_to_num(encoded.target).astype(dtype)  # rows without a target are in no split
    with ExitStack() as stack:
        writers = {name: _writers(stack, out, f"{name}.", len(numbers), len(others)) for name in PLACES}
        for name in PLACES:
            writers[name][LABEL] = stack.enter_context(arrays.Writer(out / f"{name}.{LABEL}.npy", dtype))
            for array in (ROW, UNIT):
                writers[name][array] = stack.enter_context(arrays.Writer(out / f"{name}.{array}.npy", np.int64))
        progress = Progress(log)
        for first in range(0, len(split), CHUNK):
            _copy(first, known, target, encoded.rows.units, split, lookups, writers)
            progress.say(f"{out}: {first:,} of {len(split):,} rows written")
    parts = {
        name: Part(samples=each[LABEL].rows, sha256=arrays.joint_sha256(*each.values()))
        for name, each in writers.items()
    }
    numbers = _with_quantiles(out, numbers)
    by_name = {column.name: column for column in (*numbers, *others)}
    return Written(parts, [by_name[column.name] for column in own])


def _open(folder: Path) -> dict[str, NDArray[np.generic]]:
    files = {name: folder / f"{name}.npy" for name in (NUMBER, CATEGORY)}
    return {
        name: np.load(file, mmap_mode="r", allow_pickle=False) for name, file in files.items() if file.is_file()
    }


def _copy(
    first: int,
    known: Mapping[str, NDArray[np.generic]],
    target: NDArray[np.generic],
    units: NDArray[np.uint64],
    split: NDArray[np.int8],
    lookups: Sequence[NDArray[np.int32]],
    writers: Mapping[str, Mapping[str, arrays.Writer]],
) -> None:
    """Copy a chunk of rows into the arrays of their splits."""
    chunk = slice(first, first + CHUNK)
    features = {name: np.asarray(array[chunk]) for name, array in known.items()}
    if CATEGORY in features:
        features[CATEGORY] = np.stack(
            [lookup[features[CATEGORY][:, place]] for place, lookup in enumerate(lookups)], axis=1
        )
    for name, place in PLACES.items():
        rows = np.flatnonzero(split[chunk] == place)
        for array, values in features.items():
            writers[name][array].append(values[rows])
        writers[name][LABEL].append(target[chunk][rows])
        writers[name][ROW].append(first + rows.astype(np.int64))
        writers[name][UNIT].append(units[chunk][rows].view(np.int64))


def _with_categories(
    others: Sequence[Column],
    values: Sequence[Sequence[str]],
    indices: NDArray[np.generic] | None,
    train: NDArray[np.bool_],
) -> tuple[list[Column], list[NDArray[np.int32]]]:
    """Return columns with the categories of training, and the new index of each index that was written."""
    if indices is None:
        return [], []
    sizes = [SPECIAL + (column.buckets or len(each)) for column, each in zip(others, values, strict=True)]
    counts = [np.zeros(size, np.int64) for size in sizes]
    for first in range(0, len(train), CHUNK):
        own = np.asarray(indices[first : first + CHUNK])[train[first : first + CHUNK]]
        for place, count in enumerate(counts):
            np.add(count, np.bincount(own[:, place], minlength=len(count)), out=count)
    found, lookups = [], []
    for named, each, count in zip(others, values, counts, strict=True):
        column = named
        lookup = np.arange(len(count), dtype=np.int32)
        if not column.buckets:
            frequent = [value for value, number in zip(each, count[SPECIAL:], strict=True) if number >= LEAST]
            rare = [value for value, number in zip(each, count[SPECIAL:], strict=True) if 0 < number < LEAST]
            places = {value: SPECIAL + place for place, value in enumerate(frequent)} | dict.fromkeys(rare, RARE)
            lookup[SPECIAL:] = [places.get(value, UNSEEN) for value in each]
            column = column.model_copy(update={"categories": frequent, "rare": rare})
        found.append(column.model_copy(update={"usual": int(lookup[np.argmax(count)])}))
        lookups.append(lookup)
    return found, lookups


def _with_quantiles(out: Path, numbers: Sequence[Column]) -> list[Column]:
    """Return columns with quantiles of the training rows, and whether any of these is missing."""
    if not numbers:
        return []
    own = arrays.load(out / f"train.{NUMBER}.npy").numpy()
    places = np.arange(min(len(own), SAMPLED)) * len(own) // min(len(own), SAMPLED)
    sample = own[places]  # (S, numbers)
    found = []
    for place, column in enumerate(numbers):
        values = sample[:, place]
        present = values[~np.isnan(values)].astype(np.float64)
        quantiles, scores = quantile_scores(present)
        missing = len(present) < len(values)
        found.append(column.model_copy(update={"quantiles": quantiles, "scores": scores, "missing": missing}))
    return found


def quantile_scores(values: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Return the different quantiles of values (N,), at least two, and the standard normal quantile of each."""
    if not len(values):
        return [0.0, 1.0], [0.0, 1.0]
    levels = np.linspace(0, 1, QUANTILES + 1)
    quantiles = np.quantile(values, levels, method="nearest")
    different, member = np.unique(quantiles, return_inverse=True)
    if len(different) == 1:
        return [float(different[0]), float(different[0]) + 1], [0.0, 1.0]
    level = np.bincount(member, levels) / np.bincount(member)
    margin = 0.5 / max(len(values), QUANTILES)
    scores = ndtri(np.clip(level, margin, 1 - margin))
    return [float(each) for each in different], [round(float(each), 6) for each in scores]


CODES = {-1, -9, -99, -999, -9999, 96, 97, 98, 99, 999, 9999, 99999, 999999}
"""Numbers that often stand for something else."""


def remark_codes(numbers: Sequence[Column]) -> list[str]:
    """Return remarks on values that look like codes: smallest or largest ones that are among `CODES`, and further
    from all other quantiles than these are from each other."""
    remarks = []
    for column in numbers:
        quantiles = column.quantiles
        if column.kind != "number" or len(quantiles) < 4:
            continue
        for code, rest in ((quantiles[0], quantiles[1:]), (quantiles[-1], quantiles[:-1])):
            distance = min(abs(code - each) for each in rest)
            if code in CODES and distance > max(rest) - min(rest):
                remarks.append(
                    f"{code:g} in the column {brief(column.name)} looks like a code, far from all others: if "
                    "it stands for a missing value, add it to prepare.missing"
                )
    return remarks


def left_out(tables: Tables, divided: Divided, encoded: Encoded) -> dict[str, list[tuple[str, int, str]]]:
    """Return the rows that are left out, by file: a reason, their number, and where the first is."""
    found: dict[str, list[tuple[str, int, str]]] = {}
    first = 0
    for table in (table for own in tables.values() for table in own):
        own = slice(first, first + encoded.sizes[table.file.name])
        reasons = {
            "without a target": np.isnan(encoded.target[own]),
            "also in the table for testing or validation": divided.repeated[own],
        }
        for reason, rows in reasons.items():
            if rows.any():
                where = table.at(int(np.argmax(rows)))
                found.setdefault(table.file.name, []).append((reason, int(rows.sum()), where))
        first = own.stop
    return found


def unknown_columns(asked: Sequence[str], there: Sequence[str]) -> str:
    """Return the first name that is no column, with those there, or an empty string."""
    lacking = [name for name in asked if name and name not in there]
    return f"{brief(lacking[0])} (there are {raw_files.listed([brief(name) for name in there])})" if lacking else ""
