"""What the text of cells can mean: numbers in four ways of writing, dates, and words for a missing value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from numpy.typing import NDArray

Writing = Literal["point", "comma", "thousands_commas", "thousands_points"]
"""How numbers are written: 1234.5, 1234,5, 1,234.5 or 1.234,5."""
WRITINGS: dict[Writing, str] = {
    "point": r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$",
    "comma": r"^[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?$",
    "thousands_commas": r"^[+-]?(\d{1,3}|[1-9]\d{0,2}(,\d{3})+)(\.\d*)?$",
    "thousands_points": r"^[+-]?(\d{1,3}|[1-9]\d{0,2}(\.\d{3})+)(,\d*)?$",
}
DECIMAL: dict[Writing, Literal["point", "comma"]] = {
    "point": "point",
    "comma": "comma",
    "thousands_commas": "point",
    "thousands_points": "comma",
}
"""The decimal mark of each way of writing."""
LEADING_ZERO = r"^[+-]?0\d"
"""Marks a post code or the number of a card, which is no quantity."""
INTEGER = r"^[+-]?\d+$"

Order = Literal["iso", "day_first", "month_first"]
_TIME = r"([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?Z?)?$"
_DAY, _MONTH, _YEAR = r"(0?[1-9]|[12]\d|3[01])", r"(0?[1-9]|1[0-2])", r"\d{4}"
DATES: dict[Order, str] = {
    "iso": rf"^{_YEAR}[-/.]{_MONTH}[-/.]{_DAY}{_TIME}",
    "day_first": rf"^{_DAY}[-/.]{_MONTH}[-/.]{_YEAR}{_TIME}",
    "month_first": rf"^{_MONTH}[-/.]{_DAY}[-/.]{_YEAR}{_TIME}",
}
ANY_DATE = rf"^(\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{4}}){_TIME}"
"""What looks like a date, in whatever order."""
_PARTS = {
    "iso": r"^(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
    "day_first": r"^(?P<day>\d{1,2})[-/.](?P<month>\d{1,2})[-/.](?P<year>\d{4})",
    "month_first": r"^(?P<month>\d{1,2})[-/.](?P<day>\d{1,2})[-/.](?P<year>\d{4})",
}
_CLOCK = r"(?:[ T](?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}(?:\.\d+)?))?Z?)?$"

MISSING_WORDS = ("NA", "N/A", "n/a", "na", "?", "-", "null", "NULL", "None", "none", "nan", "NaN", "#N/A")
"""Words that often stand for a missing value, but may also be a value, as NA for Namibia."""


def trimmed(cells: pa.Array) -> pa.Array:
    """Return cells without white space at their ends."""
    return pc.utf8_trim_whitespace(cells)


def fit(cells: pa.Array, pattern: str) -> NDArray[np.bool_]:
    """Return which cells match a pattern."""
    found: NDArray[np.bool_] = pc.match_substring_regex(cells, pattern).to_numpy(zero_copy_only=False)
    return found


def numbers(cells: pa.Array, writing: Writing) -> NDArray[np.float64]:
    """Return the numbers in cells that are written in one way, (N,); NaN for an empty cell or None.

    Raises:
        pa.ArrowInvalid: a cell is no number.
    """
    if writing == "thousands_commas":
        cells = pc.replace_substring(cells, ",", "")
    elif writing == "thousands_points":
        cells = pc.replace_substring(cells, ".", "")
    if DECIMAL[writing] == "comma":
        cells = pc.replace_substring(cells, ",", ".")
    cells = pc.replace_substring_regex(cells, r"^\+", "")
    filled = pc.if_else(pc.equal(cells, ""), None, cells)
    found: NDArray[np.float64] = pc.cast(filled, pa.float64()).to_numpy(zero_copy_only=False)
    return found


def days(cells: pa.Array, order: Order) -> NDArray[np.float64]:
    """Return the dates in cells as days since 1970-01-01, with the time as a fraction, (N,).

    NaN for a cell that is empty, None, or no date, such as 2023-02-30.
    """
    parts = pc.extract_regex(cells, _PARTS[order] + _CLOCK)
    year, month, day = (_field(parts, name) for name in ("year", "month", "day"))
    hour, minute, second = (np.nan_to_num(_field(parts, name)) for name in ("hour", "minute", "second"))
    known = ~np.isnan(year) & (month >= 1) & (month <= 12)
    months = (np.where(known, year, 1970) - 1970) * 12 + np.where(known, month, 1) - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]")
    date = first + (np.where(known, day, 1) - 1).astype("timedelta64[D]")
    known &= date.astype("datetime64[M]") == first.astype("datetime64[M]")
    found: NDArray[np.float64] = np.where(
        known, date.astype(np.int64) + (hour * 3600 + minute * 60 + second) / 86_400, np.nan
    )
    return found


def _field(parts: pa.Array, name: str) -> NDArray[np.float64]:
    texts = pc.struct_field(parts, name)
    filled = pc.if_else(pc.equal(texts, ""), None, texts)
    values: NDArray[np.float64] = pc.cast(filled, pa.float64()).to_numpy(zero_copy_only=False)
    return values


def without_missing(cells: pa.Array, words: Sequence[str]) -> pa.Array:
    """Return trimmed cells in which empty ones and those of `words` are None."""
    own = trimmed(cells)
    return pc.if_else(pc.is_in(own, value_set=pa.array(["", *words], pa.string())), None, own)
