"""What a whole column holds, gathered block by block in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from numpy.typing import NDArray

from components.tables import cells
from components.tables.cells import ANY_DATE, DATES, INTEGER, LEADING_ZERO, MISSING_WORDS, WRITINGS, Order, Writing

MOST_CATEGORIES = 10_000
"""Most different values that are counted one by one; of a column with more, their hashes are used."""
SKETCH = 16_384
"""Smallest hashes that are kept to estimate the number of different values, within about 1 %."""


@dataclass
class Profile:
    """What was seen of a column; missing cells count only as `missing`."""

    name: str
    rows: int = 0
    missing: int = 0
    words: Counter[str] = field(default_factory=Counter)
    """Cells of each of `MISSING_WORDS` that is not among the words for a missing value."""
    writings: set[Writing] = field(default_factory=lambda: set(WRITINGS))
    """Ways of writing numbers that fit all cells but those in `words`."""
    separated: bool = False
    """Whether a cell has a point or comma, so that its way of writing matters."""
    orders: set[Order] = field(default_factory=lambda: set(DATES))
    """Orders of day and month that fit all cells."""
    dates: bool = True
    """Whether all cells look like dates, in whatever order."""
    leading_zero: str = ""
    """A cell with a leading zero."""
    integers: bool = True
    digits: set[int] = field(default_factory=set)
    """Numbers of digits of the cells, if all are integers."""
    smallest: float = np.inf
    largest: float = -np.inf
    odd: str = ""
    """The first cell, if there is one, that is not a number."""
    counts: Counter[str] | None = field(default_factory=Counter)
    """How often each value occurs; None if there are over `MOST_CATEGORIES`."""
    _hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    @property
    def present(self) -> int:
        """Number of cells that are not missing."""
        return self.rows - self.missing

    @property
    def distinct(self) -> float:
        """Number of different values: exact up to `SKETCH`, or else estimated (Bar-Yossef et al. 2002, RANDOM)."""
        if len(self._hashes) < SKETCH:
            return float(len(self._hashes))
        return (SKETCH - 1) / (float(self._hashes[-1]) / 2**64)

    def add(self, column: pa.Array, missing: Sequence[str]) -> None:
        """Take in a block of cells."""
        self.rows += len(column)
        counted = pc.value_counts(column)
        texts = cells.without_missing(counted.field("values"), missing)
        counts: NDArray[np.int64] = counted.field("counts").to_numpy(zero_copy_only=False)
        present = pc.is_valid(texts).to_numpy(zero_copy_only=False)
        self.missing += int(counts[~present].sum())
        own, counts = texts.drop_null(), counts[present]
        if len(own):
            self._meaning(own, counts)
            self._values(own, counts)

    def _meaning(self, own: pa.Array, counts: NDArray[np.int64]) -> None:
        is_word = pc.is_in(own, value_set=pa.array(MISSING_WORDS)).to_numpy(zero_copy_only=False)
        for index in np.flatnonzero(is_word):
            self.words[own[int(index)].as_py()] += int(counts[index])
        rest = own.filter(pa.array(~is_word))
        if not len(rest):
            return
        for writing in list(self.writings):
            fits = cells.fit(rest, WRITINGS[writing])
            if not fits.all():
                self.writings.discard(writing)
                if not self.writings:
                    self.odd = rest[int(np.argmin(fits))].as_py()
        if self.writings:
            self._numbers(rest)
        if self.orders:
            self.orders = {order for order in self.orders if cells.fit(rest, DATES[order]).all()}
        self.dates = self.dates and bool(cells.fit(rest, ANY_DATE).all())

    def _numbers(self, rest: pa.Array) -> None:
        self.separated = self.separated or bool(cells.fit(rest, r"[.,]").any())
        zeros = cells.fit(rest, LEADING_ZERO)
        if zeros.any() and not self.leading_zero:
            self.leading_zero = rest[int(np.argmax(zeros))].as_py()
        self.integers = self.integers and bool(cells.fit(rest, INTEGER).all())
        if self.integers:
            values = cells.numbers(rest, "point")
            self.smallest = min(self.smallest, float(values.min()))
            self.largest = max(self.largest, float(values.max()))
            if len(self.digits) < 2:
                self.digits |= set(pc.unique(pc.utf8_length(rest)).to_pylist())

    def _values(self, own: pa.Array, counts: NDArray[np.int64]) -> None:
        texts = own.to_numpy(zero_copy_only=False)
        if self.counts is not None:
            for text, count in zip(texts.tolist(), counts.tolist(), strict=True):
                self.counts[text] += count
            if len(self.counts) > MOST_CATEGORIES:
                self.counts = None
        hashes = hashed(own)
        if len(self._hashes) == SKETCH:
            hashes = hashes[hashes < self._hashes[-1]]
        self._hashes = np.union1d(self._hashes, hashes)[:SKETCH]


def hashed(texts: pa.Array) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each text (N,), the same on every machine."""
    values = texts.to_numpy(zero_copy_only=False)
    found: NDArray[np.uint64] = pd.util.hash_array(values.astype(object), categorize=False)
    return found
