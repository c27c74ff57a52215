"""What is known of a prepared table, and how its arrays are opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from components.classification.probabilities import Problem
from components.contracts import Manifest
from components.datasets import arrays
from components.datasets.splits import Columns
from components.tables import files as files_
from components.tables.columns import Column, LeftOut

NUMBER, CATEGORY, LABEL, ROW, UNIT = "number", "category", "label", "row", "unit"
"""Arrays of a split: float32 (N, numbers), int32 (N, categories), the target, the place in the tables, int64 (N,),
and a hash that is equal for rows that belong together, int64 (N,)."""


class Reading(BaseModel):
    """How tables are read again."""

    model_config = ConfigDict(frozen=True)

    delimiter: files_.Delimiter
    encoding: files_.Encoding


class TableFacts(BaseModel):
    """Facts about a table that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    target: str = Field(description="Name of the target's column")
    classes: list[str] = Field(description="Sorted; a label is an index into this list; empty for a quantity")
    positive: str = Field(description="Of two classes, the one that is looked for; else empty")
    threshold: float = Field(description="Probability of the positive class from which flagging a row costs less")
    costs: dict[str, float] = Field(description="What a missed row and a false alarm cost")
    mean: float = Field(description="Mean of a quantity's training rows")
    deviation: float = Field(description="Its standard deviation")
    columns: list[Column]
    left_out: list[LeftOut]
    missing: list[str] = Field(description="Words that stand for a missing value")
    reading: Reading
    rows: dict[str, int] = Field(description="Rows of each file, in the order in which they are counted")
    counts: dict[str, dict[str, int]] = Field(description="Rows by split and class")
    slices: list[str] = Field(description="Columns by which results are also given")
    alerts: float = Field(description="Share of rows that can be looked at")
    group: str = Field(description="Column whose values are whole in one split; empty if there is none")

    @property
    def numbers(self) -> list[Column]:
        """Columns in `NUMBER`, in its order."""
        return [column for column in self.columns if column.is_number]

    @property
    def categories(self) -> list[Column]:
        """Columns in `CATEGORY`, in its order."""
        return [column for column in self.columns if not column.is_number]

    @property
    def problem(self) -> Problem:
        """The classes to tell apart."""
        return Problem(self.classes, self.positive)


def of(manifest: Manifest) -> TableFacts:
    """Return the facts in a manifest."""
    return TableFacts.model_validate(manifest.facts)


def load_split(prepared: Path, split: str) -> Columns:
    """Open a split's arrays: `number`, float32 (N, numbers), `category`, int32 (N, categories), as there are any of
    each, and `label`, int64 (N,), or for a quantity float32 (N,)."""
    files = {name: prepared / f"{split}.{name}.npy" for name in (NUMBER, CATEGORY)}
    dense = {name: arrays.load(file) for name, file in files.items() if file.is_file()}
    return Columns({**dense, LABEL: arrays.load(prepared / f"{split}.{LABEL}.npy")})


def row_names(known: TableFacts, prepared: Path, split: str) -> list[str]:
    """Return where each row of a split is, such as `train.csv:17`: line 1 has the names, and each row is a line."""
    rows = arrays.load(prepared / f"{split}.{ROW}.npy").numpy()  # ascending
    found: list[str] = []
    first = 0
    for file, count in known.rows.items():
        begin, end = np.searchsorted(rows, [first, first + count])
        found += files_.each_at(file, (rows[begin:end] - first).tolist())
        first += count
    return found


def row_units(prepared: Path, split: str) -> list[str]:
    """Return a text for each row of a split that is equal for rows that belong together."""
    return [f"{unit:x}" for unit in arrays.load(prepared / f"{split}.{UNIT}.npy").tolist()]
