"""Rows -> train, val and test: by the hash of what they hold, of their group, or by time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.datasets import raw_files
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tables.params import FOLD, TablePrepareParams

log = logging.getLogger("pedigree.prepare")

PLACES = {split: place for place, split in enumerate(raw_files.SPLITS)}
"""Number of each split."""
NONE = -1
"""Stands for the split of a row that is left out."""
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Rows:
    """What rows are divided by, each (N,)."""

    keys: Hashes
    """Equal for rows with equal cells in all columns but the target."""
    units: Hashes
    """Equal for rows that belong together: those of a group, or with equal keys."""
    strata: NDArray[np.int64]
    """The class of each row, of which each split gets the same share; `NONE` for a row without a target."""
    time: Floats | None
    """If the latest rows are for testing, the time of each."""
    given: NDArray[np.int8]
    """The number of the split whose file has the row."""


@dataclass(frozen=True)
class Divided:
    """The split of each row."""

    split: NDArray[np.int8]
    """Number of its split, or `NONE`, (N,)."""
    repeated: NDArray[np.bool_]
    """Rows that are left out as they also are in a split that was given for testing or validation, (N,)."""
    drawn: str
    """What was drawn for testing, or empty."""


def mixed(values: Hashes, salt: int) -> Hashes:
    """Return other hashes for each salt (the finaliser of SplitMix64, Steele et al. 2014, OOPSLA)."""
    found: Hashes = values + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return found ^ (found >> np.uint64(31))


def divide(rows: Rows, params: TablePrepareParams, where: str) -> Divided:
    """Draw the splits that no file gives; with `resplit` or `fold`, draw all of them from all rows.

    Raises:
        PedigreeError: there are too few rows for a split.
    """
    split = rows.given.copy()
    if params.resplit or params.fold:
        split[:] = PLACES["train"]
    given = {name for name, place in PLACES.items() if (split == place).any()}
    usable = rows.strata != NONE
    split[~usable] = NONE
    repeated = _repeated(rows, split)
    split[repeated] = NONE
    drawn, progress = "", Progress(log)
    for salt, name in enumerate(("test", "val")):
        if name in given:
            continue
        pool = np.flatnonzero(split == PLACES["train"])
        chosen = _draw(rows, pool, name, params, salt)
        split[pool[chosen]] = PLACES[name]
        progress.say(f"{where}: {int(chosen.sum()):,} of {len(pool):,} rows drawn for {name}")
        if name == "test":
            drawn = _described(int(chosen.sum()), len(pool), params)
    for name, place in PLACES.items():
        if not (split == place).any():
            raise PedigreeError(
                f"{where}: {int(usable.sum()):,} rows, or those that differ, are too few to have some for {name}: "
                "add rows"
            )
    return Divided(split, repeated, drawn)


def _repeated(rows: Rows, split: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return the rows of a given split that are equal to rows of one which is for testing or validation."""
    repeated = np.zeros(len(split), bool)
    for name, later in (("test", ("val", "train")), ("val", ("train",))):
        own = np.unique(rows.keys[split == PLACES[name]])
        if len(own):
            others = np.isin(split, [PLACES[each] for each in later])
            repeated[others] |= np.isin(rows.keys[others], own)
    return repeated


def _draw(
    rows: Rows, pool: NDArray[np.int64], name: str, params: TablePrepareParams, salt: int
) -> NDArray[np.bool_]:
    """Return which rows of a pool are drawn for a split."""
    share = params.test_share if name == "test" else params.val_share
    if rows.time is not None and not params.resplit:
        return _latest(rows.time[pool], share)
    low, high = 0.0, share
    if params.fold and name == "test":
        match = FOLD.fullmatch(params.fold)
        assert match, "checked with the parameters"
        low, high = (int(match[1]) - 1) / int(match[2]), int(match[1]) / int(match[2])
    units, first, member, sizes = np.unique(
        rows.units[pool], return_index=True, return_inverse=True, return_counts=True
    )
    strata = rows.strata[pool][first]
    # A class of a group is that of its first row.
    order = np.lexsort((mixed(units, 3 * (params.seed + 1_000_003 * params.resplit) + salt), strata))
    place = np.empty(len(units))
    for stratum in np.unique(strata):
        own = order[strata[order] == stratum]
        ends = np.cumsum(sizes[own])
        place[own] = (ends - sizes[own] / 2) / ends[-1]
    chosen: NDArray[np.bool_] = ((place >= low) & (place < high))[member]
    return chosen


def _latest(time: Floats, share: float) -> NDArray[np.bool_]:
    """Return about a share of the rows, the latest; those of equal time stay together."""
    values, counts = np.unique(time, return_counts=True)
    later = np.cumsum(counts[::-1])[::-1] / len(time)  # share of the rows from each value on
    cut = int(np.argmin(np.abs(later[1:] - share))) + 1 if len(values) > 1 else 0
    found: NDArray[np.bool_] = time >= values[cut]
    return found


def _described(count: int, total: int, params: TablePrepareParams) -> str:
    what = f"{count:,} of {total:,} rows"
    if params.fold:
        return f"part {params.fold}, {what},"
    if params.time and not params.resplit:
        return f"the latest {what}"
    return f"{what}, whole groups of {params.group}" if params.group else f"{what}, the same share of each class"


def counted(split: NDArray[np.int8]) -> Mapping[str, int]:
    """Return the number of rows of each split."""
    return {name: int((split == place).sum()) for name, place in PLACES.items()}
