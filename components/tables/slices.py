"""Slices of a table: rows with a category in common, or with a number in the same quarter of the training rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from components.datasets.splits import Columns
from components.tables.columns import RARE, SPECIAL, Column
from components.tables.facts import CATEGORY, NUMBER, TableFacts

MISSING = "missing"
OTHER = "other"
"""Categories that training had not, or hardly."""
FEW = 8
"""Most different numbers of a column for which each is a slice."""


def _edges(column: Column) -> NDArray[np.float64]:
    """Return the numbers at which the next slice begins."""
    quantiles = np.array(column.quantiles)
    if len(quantiles) <= FEW:
        return quantiles[1:]
    return np.unique(np.interp(ndtri([0.25, 0.5, 0.75]), column.scores, quantiles))


def names(known: TableFacts, kind: str) -> list[str]:
    """Return the names of a column's slices."""
    column = _column(known, kind)
    if not column.is_number:
        return [OTHER, MISSING, *column.categories]
    if len(column.quantiles) <= FEW:
        return [MISSING, *(f"{each:g}" for each in column.quantiles)]
    edges = [f"{each:.4g}" for each in _edges(column)]
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [MISSING, f"below {edges[0]}", *between, f"from {edges[-1]}"]


def places(split: Columns, known: TableFacts, kind: str) -> NDArray[np.int64]:
    """Return the place of each row's slice in `names`, (N,)."""
    column = _column(known, kind)
    if column.is_number:
        values = split[NUMBER][:, known.numbers.index(column)].double().numpy()
        found = np.searchsorted(_edges(column), values, side="right") + 1
        return np.where(np.isnan(values), 0, found).astype(np.int64)
    index = split[CATEGORY][:, known.categories.index(column)].long().numpy()
    own = np.where(index >= SPECIAL, index - SPECIAL + 2, np.where(index == 1, 1, 0))
    return np.where(index == RARE, 0, own).astype(np.int64)


def _column(known: TableFacts, kind: str) -> Column:
    return next(column for column in known.columns if column.name == kind)
