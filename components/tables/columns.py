"""Types of a table's columns, decided from whole columns, and how cells become numbers and categories by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from components.datasets import raw_files
from components.display import brief
from components.errors import PedigreeError
from components.tables import cells
from components.tables.cells import DECIMAL, Order, Writing
from components.tables.params import TablePrepareParams
from components.tables.profile import MOST_CATEGORIES, Profile, hashed

UNSEEN, MISSING, RARE = 0, 1, 2
"""Indices of categories that training had not, of empty cells, and of categories that are too rare."""
SPECIAL = 3
"""Number of these; the categories follow."""
LEAST = 3
"""Fewest training rows of a category that gets an index of its own."""
UNIQUE = 0.9
"""Share of different values from which a column of words identifies rows."""
FEW_ROWS = 20
"""Rows below which values may all differ by chance."""
LONG_NUMBER = 6
"""Digits from which different integers of equal length are identifiers."""


class Column(BaseModel):
    """How the cells of a column are read."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["number", "date", "category"]
    writing: Writing = Field(default="point", description="How its numbers are written")
    order: Order = Field(default="iso", description="Order of day, month and year of its dates")
    categories: list[str] = Field(default=[], description="Sorted; those with at least 3 training rows")
    rare: list[str] = Field(default=[], description="Sorted; those with fewer, which share an index")
    buckets: int = Field(default=0, description="Indices that share the hashes of over 10,000 categories; else 0")
    usual: int = Field(default=MISSING, description="Index of the most frequent category of the training rows")
    quantiles: list[float] = Field(default=[], description="Different quantiles of a number, of the training rows")
    scores: list[float] = Field(default=[], description="Standard normal quantiles at which they lie")
    missing: bool = Field(default=False, description="Whether a training row has no number in it")

    @property
    def is_number(self) -> bool:
        """Whether it becomes a number, as dates do, too."""
        return self.kind != "category"

    @property
    def cardinality(self) -> int:
        """Number of indices of a category, or of the flag that a number is missing."""
        return SPECIAL + (self.buckets or len(self.categories))


class LeftOut(BaseModel):
    """A column that is not used, and why."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


def decide(
    profiles: Mapping[str, Profile], params: TablePrepareParams, where: str
) -> tuple[list[Column], list[LeftOut], list[str]]:
    """Decide the type of each column.

    Args:
        profiles: By name, of all columns that may be used.
        params: What was asked for.
        where: The table, for errors.

    Returns:
        The columns, those left out, and remarks for a person.

    Raises:
        PedigreeError: a column can be read in several ways, or mixes some.
    """
    decimal = _decimal(profiles, params, where)
    columns: list[Column] = []
    left: list[LeftOut] = []
    remarks: list[str] = []
    for name, profile in profiles.items():
        if reason := _useless(profile, params):
            left.append(LeftOut(name=name, reason=reason))
            continue
        columns.append(_column(profile, params, decimal, where))
        if columns[-1].kind == "category" and profile.words:
            word, count = profile.words.most_common(1)[0]
            remarks.append(
                f"the column {brief(name)} has {count:,} cells {brief(word)}, which are taken for a category: if "
                "they are missing values, add the word to prepare.missing"
            )
    return columns, left, remarks


def _useless(profile: Profile, params: TablePrepareParams) -> str:
    """Return why a column is left out, or an empty string."""
    if not profile.present:
        return "it is empty"
    if profile.distinct == 1 and not profile.missing:
        return "all cells are equal"
    if profile.name in params.allow or profile.rows < FEW_ROWS:
        return ""
    share = profile.distinct / profile.present
    if share <= UNIQUE:
        return ""
    if not profile.writings or profile.leading_zero:
        return "" if profile.dates else f"it identifies rows: {_percent(share)} of its values differ"
    numbered = profile.integers and profile.largest - profile.smallest < 1.1 * profile.rows
    coded = profile.integers and len(profile.digits) == 1 and min(profile.digits) >= LONG_NUMBER
    return "it numbers the rows" if numbered or coded else ""


def _percent(share: float) -> str:
    return f"{min(share, 1):.0%}"


def _decimal(
    profiles: Mapping[str, Profile], params: TablePrepareParams, where: str
) -> Literal["point", "comma", "unknown"]:
    """Return the decimal mark of the table, by the columns that leave no doubt.

    Raises:
        PedigreeError: some columns have a point, and others a comma.
    """
    if params.decimal != "auto":
        return params.decimal
    marks: dict[str, str] = {}
    for profile in profiles.values():
        own = {DECIMAL[writing] for writing in profile.writings}
        if profile.separated and len(own) == 1:
            marks.setdefault(own.pop(), profile.name)
    if len(marks) == 2:
        raise PedigreeError(
            f"{where}: the column {brief(marks['point'])} has decimal points, and {brief(marks['comma'])} has "
            "decimal commas: write both in one way"
        )
    return "point" if "point" in marks else "comma" if "comma" in marks else "unknown"


def _column(profile: Profile, params: TablePrepareParams, decimal: str, where: str) -> Column:
    name = profile.name
    if name in params.categories or (profile.writings and profile.leading_zero):
        return Column(name=name, kind="category", buckets=_buckets(profile))
    if profile.writings:
        writings = profile.writings
        if profile.separated and len({DECIMAL[each] for each in writings}) == 2:
            if decimal == "unknown":
                raise PedigreeError(
                    f"{where}: numbers of the column {brief(name)}, such as {_example(profile)}, can have "
                    "thousands separators or three decimals, and no other column tells: set prepare.decimal to "
                    "point or comma"
                )
            writings = {each for each in writings if DECIMAL[each] == decimal}
        if profile.words:
            word, count = profile.words.most_common(1)[0]
            raise PedigreeError(
                f"{where}: the column {brief(name)} has numbers and {count:,} cells {brief(word)}: add the word to "
                "prepare.missing, or the column to prepare.categories"
            )
        return Column(name=name, kind="number", writing=next(each for each in cells.WRITINGS if each in writings))
    if profile.dates and not profile.words:
        return Column(name=name, kind="date", order=_order(profile, params, where))
    return Column(name=name, kind="category", buckets=_buckets(profile))


def _example(profile: Profile) -> str:
    texts = list(profile.counts or ())
    return next((brief(text) for text in texts if "." in text or "," in text), "those with a point or comma")


def _order(profile: Profile, params: TablePrepareParams, where: str) -> Order:
    """Return the order of day and month that fits all cells.

    Raises:
        PedigreeError: none does, or both do and `prepare.dates` does not say which.
    """
    orders = profile.orders
    if not orders:
        raise PedigreeError(
            f"{where}: no order of day, month and year fits all dates of the column {brief(profile.name)}: write "
            "all of them in one way, such as 2026-01-31"
        )
    if len(orders) == 1:
        return next(iter(orders))
    if params.dates == "auto":
        raise PedigreeError(
            f"{where}: dates of the column {brief(profile.name)} can have the day or the month first: set "
            "prepare.dates to day_first or month_first"
        )
    return params.dates


def _buckets(profile: Profile) -> int:
    return MOST_CATEGORIES if profile.counts is None else 0


class Unreadable(ValueError):  # noqa: N818 (it describes the cell)
    """A cell cannot be read as its column's type; the message is the reason."""


def numbers(column: Column, texts: pa.Array, missing: Sequence[str]) -> NDArray[np.float32]:
    """Return the numbers or days of a column's cells, float32 (N,), with NaN for missing ones.

    Raises:
        Unreadable: a cell is no such number or date.
    """
    encoded = pc.dictionary_encode(cells.without_missing(texts, missing))
    values, codes = encoded.dictionary, encoded.indices
    if column.kind == "date":
        found = cells.days(values, column.order)
        bad = np.flatnonzero(np.isnan(found))
        what = "date"
    else:
        fits = cells.fit(values, cells.WRITINGS[column.writing])
        bad = np.flatnonzero(~fits)
        found = cells.numbers(values, column.writing) if not len(bad) else np.empty(0)
        what = "number"
        if not len(bad):
            with np.errstate(over="ignore"):
                bad = np.flatnonzero(~np.isfinite(found.astype(np.float32)))
    if len(bad):
        raise Unreadable(
            f"{brief(values[int(bad[0])].as_py())} in the column {brief(column.name)} is no {what} like the others"
        )
    known = pc.is_valid(codes).to_numpy(zero_copy_only=False)
    places = pc.fill_null(codes, 0).to_numpy(zero_copy_only=False)
    own = np.full(len(texts), np.nan, np.float32)
    if len(found):
        own[known] = found.astype(np.float32)[places[known]]
    return own


def indices(column: Column, values: Sequence[str], texts: pa.Array, missing: Sequence[str]) -> NDArray[np.int32]:
    """Return the index of each cell among some values, int32 (N,), with `UNSEEN` and `MISSING` for others.

    Args:
        column: With `buckets`, the index is that of the text's hash.
        values: Those that have an index, `SPECIAL` and up.
        texts: The cells.
        missing: Words for a missing value.
    """
    own = cells.without_missing(texts, missing)
    encoded = pc.dictionary_encode(own)
    if column.buckets:
        places = SPECIAL + (hashed(encoded.dictionary) % np.uint64(column.buckets)).astype(np.int64)
    else:
        found = pc.index_in(encoded.dictionary, value_set=pa.array(values, pa.string()))
        places = pc.fill_null(pc.add(found, SPECIAL), UNSEEN).to_numpy(zero_copy_only=False)
    known = pc.is_valid(encoded.indices).to_numpy(zero_copy_only=False)
    result = np.full(len(texts), MISSING, np.int32)
    if known.any():
        result[known] = places[pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)[known]]
    return result


def served_indices(column: Column, texts: pa.Array, missing: Sequence[str]) -> NDArray[np.int32]:
    """Return the index of each cell of a column of categories as the network knows them, int32 (N,)."""
    found = indices(column, [*column.categories, *column.rare], texts, missing)
    if column.buckets:
        return found
    return np.where(found >= SPECIAL + len(column.categories), RARE, found).astype(np.int32)


def listed(left: Sequence[LeftOut]) -> str:
    """Return columns that were left out, with the reasons, as part of a sentence."""
    return raw_files.listed([f"{brief(each.name)} ({each.reason})" for each in left])
