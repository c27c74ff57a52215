"""Parameters of tables."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import PrepareParams, Section
from components.tables.files import Delimiter, Encoding

FOLD = re.compile(r"(\d{1,3})/(\d{1,3})")


class CostsParams(Section):
    """What mistakes cost, in any unit."""

    missed: float = Field(gt=0, description="Cost of a positive row that is not flagged")
    false_alarm: float = Field(gt=0, description="Cost of a negative row that is flagged")


class TablePrepareParams(PrepareParams):
    """How the cells of tables become numbers and categories, and what is predicted."""

    seed: int = Field(ge=0, lt=2**31, description="Seed of the division into splits")
    target: str = Field(
        min_length=1, description="The column to predict; auto takes one called target, label, class or y"
    )
    problem: Literal["auto", "classification", "regression"] = Field(
        description="Whether the target is one of some classes or a quantity; auto takes numbers with over 20 "
        "different values for a quantity"
    )
    positive: str = Field(
        description="Of two classes, the one that is looked for; empty takes the one that is sorted last"
    )
    costs: CostsParams
    drop: list[str] = Field(description="Columns that are not used")
    allow: list[str] = Field(
        description="Columns that are used although they seem to identify rows or to reveal the target"
    )
    categories: list[str] = Field(description="Columns of categories, whatever their cells look like")
    group: str = Field(description="Column whose values are whole in one split, such as a patient; empty for none")
    time: str = Field(description="Column by which the latest rows are for testing; empty for none")
    missing: list[str] = Field(description="Words that stand for a missing value, as an empty cell does")
    decimal: Literal["auto", "point", "comma"] = Field(
        description="Decimal mark of numbers that can be read in two ways, such as 1.299"
    )
    dates: Literal["auto", "day_first", "month_first"] = Field(
        description="Order of dates that can be read in two ways, such as 01/02/2026"
    )
    delimiter: Delimiter = Field(description="What is between cells of a CSV")
    encoding: Encoding = Field(description="Encoding of a CSV without a byte-order mark")
    fold: str = Field(
        description="i/k tests on the ith of k equal parts of all rows, from 1/k to k/k; empty for the test split"
    )

    slices: list[str] = Field(
        description="Columns by whose categories, or quarters of numbers, results are given, such as sex or age"
    )
    alerts: float = Field(
        gt=0,
        lt=1,
        description="Share of rows that can be looked at, for precision and recall of a budget of alerts",
    )

    @model_validator(mode="after")
    def _the_fold_is_one_of_several(self) -> Self:
        if self.fold:
            match = FOLD.fullmatch(self.fold)
            if not match or not 1 <= int(match[1]) <= int(match[2]) or int(match[2]) < 2:
                raise ValueError(f"fold {self.fold!r} should be one of several parts, such as 1/5")
            if self.time:
                raise ValueError("the latest rows are no fold: set one of time and fold to ''")
        return self

    @model_validator(mode="after")
    def _rows_are_divided_in_one_way(self) -> Self:
        if self.group and self.time:
            raise ValueError("rows are divided by group or by time: set one of them to ''")
        return self
