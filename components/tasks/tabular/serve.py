"""The served table: optional numbers and texts in, a class with its probability or a quantity out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from components.classification import decision
from components.classification.answers import answers, decided
from components.contracts import Kind, Manifest, Predict, Prepared, Row, Served
from components.datasets import arrays
from components.datasets.ingest import Unusable, named
from components.requests import answer_rows, settings
from components.tables import columns, facts, files, shapley
from components.tables.columns import Column, Unreadable
from components.tables.facts import NUMBER, ROW, TableFacts
from components.tasks.tabular.params import TabularParams

TOGETHER = 1_024
"""Most rows of a batch."""
LONGEST = 10_000
"""Most characters of a text."""
MOST_REASONS = 100
"""Most reasons of an answer."""


Network = Callable[[NDArray[np.float32], NDArray[np.int32]], torch.Tensor]
"""Maps features to outputs on the CPU, (B, outputs)."""


class Asked(BaseModel):
    """What a request may set for all its rows."""

    model_config = ConfigDict(extra="forbid")

    reasons: int = Field(default=0, ge=0, le=MOST_REASONS)


def served(manifest: Manifest, params: TabularParams) -> Served:
    """Describe requests and answers."""
    known = facts.of(manifest)
    outputs: dict[str, Kind] = {"value": "double"}
    if known.classes:
        outputs = {"label": "string", "probability": "double", "probabilities": "map"}
    if known.positive:
        outputs["threshold"] = "double"
    return Served(
        inputs={column.name: _kind(column) for column in known.columns},
        outputs={**outputs, "unseen": "strings", "reasons": "map"},
        example={column.name: _example(column) for column in known.columns},
        requirements=("numpy", "pandas", "pyarrow", "rtdl-num-embeddings", "scipy", "tabm"),
        optional=frozenset(column.name for column in known.columns),
        params={"reasons": 0},
    )


def _kind(column: Column) -> Kind:
    return "double" if column.kind == "number" else "string"


def _example(column: Column) -> Any:
    """Return the middle of a number's quantiles, the first category, or a date."""
    if column.kind == "number":
        return column.quantiles[len(column.quantiles) // 2]
    if column.kind == "date":
        return {"iso": "2026-01-31", "day_first": "31/01/2026", "month_first": "01/31/2026"}[column.order]
    return next(iter(column.categories), "")


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Yield the test rows, read again from the raw folder, with numbers as they were read."""
    known = facts.of(prepared.manifest)
    wanted = arrays.load(prepared.folder / f"test.{ROW}.npy").numpy()
    numbers = arrays.load(prepared.folder / f"test.{NUMBER}.npy").numpy() if known.numbers else None
    folder, first, done = raw(), 0, 0
    texts = [column.name for column in known.columns if column.kind != "number"]
    ways = known.reading
    for name, size in known.rows.items():
        table = files.opened(folder / name, ways.delimiter, ways.encoding)
        for block in table.blocks(texts or table.columns[:1]):
            begin = first + block.first
            while done < len(wanted) and wanted[done] < begin + block.cells.num_rows:
                place = int(wanted[done] - begin)
                row: Row = {text: block.cells.column(text)[place].as_py() for text in texts}
                if numbers is not None:
                    row |= _numbers(known, numbers[done])
                yield {column.name: row[column.name] for column in known.columns}
                done += 1
        first += size


def _numbers(known: TableFacts, values: NDArray[np.float32]) -> Row:
    pairs = zip(known.numbers, values.tolist(), strict=True)
    return {column.name: None if math.isnan(each) else each for column, each in pairs if column.kind == "number"}


class Encoded(BaseModel):
    """A row as the network reads it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    number: list[float]
    category: list[int]
    unseen: list[str]


def load_predict(model: nn.Module, manifest: Manifest, params: TabularParams) -> Predict:
    """Return the function that answers rows of numbers and texts, all of them optional.

    An answer is `{"label": str, "probability": float, "probabilities": {class: float}, …}`, of two classes with the
    `threshold` from which the positive one is the label, or for a quantity `{"value": float, …}`. `unseen` names
    the columns with a category that training had not. With the request's parameter `reasons: N`, `reasons` has the
    N columns with the largest shares in the answer, as Shapley values against a row of medians and most frequent
    categories: in log odds of the positive or named class, or in units of the quantity.
    """
    known = facts.of(manifest)
    model.eval()
    device = next(model.parameters()).device
    usual = shapley.usual_row(known)

    def network(number: NDArray[np.float32], category: NDArray[np.int32]) -> torch.Tensor:
        found: torch.Tensor = model(
            torch.from_numpy(number).to(device) if known.numbers else None,
            torch.from_numpy(category).to(device) if known.categories else None,
        )
        return found.cpu()

    def read(row: Row) -> Encoded:
        return _encoded(row, known)

    @torch.inference_mode()
    def answer(inputs: list[Encoded], reasons: int) -> list[Row]:
        number = np.array([each.number for each in inputs], np.float32).reshape(len(inputs), len(known.numbers))
        category = np.array([each.category for each in inputs], np.int32).reshape(
            len(inputs), len(known.categories)
        )
        outputs = network(number, category)
        found = _answers(model, outputs, known)
        for place, (own, each) in enumerate(zip(found, inputs, strict=True)):
            own["unseen"] = each.unseen
            own["reasons"] = {}
            if reasons:
                explained = partial(_explained, network, _judged(outputs[place], known))
                row = shapley.Features(number[place], category[place])
                shares = shapley.values(explained, row, usual, known)
                own["reasons"] = dict(sorted(shares.items(), key=lambda item: -abs(item[1]))[:reasons])
        return found

    def predict(requested: list[Row], given: Mapping[str, Any]) -> list[Any]:
        asked = settings(Asked, given)
        return answer_rows(requested, read, lambda inputs: answer(inputs, asked.reasons), "row", TOGETHER)

    return predict


def _answers(model: nn.Module, outputs: torch.Tensor, known: TableFacts) -> list[Row]:
    if not known.classes:
        return [{"value": value} for value in outputs[:, 0].double().tolist()]
    last = decision.of(model)
    if last is None:
        return answers(outputs, known.classes, "label")
    return decided(outputs, known.classes, last.positive, last.threshold.cpu())


def _judged(output: torch.Tensor, known: TableFacts) -> int | None:
    """Return the class whose log odds are explained; None for a quantity."""
    if not known.classes:
        return None
    return known.problem.index if known.positive else int(output.argmax())


def _explained(
    network: Network, label: int | None, number: NDArray[np.float32], category: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the log odds of a class, or the quantity, of each row (B,)."""
    wide = network(number, category).double()
    if label is None:
        found: NDArray[np.float64] = wide[:, 0].numpy()
        return found
    others = [each for each in range(wide.shape[1]) if each != label]
    odds: NDArray[np.float64] = (wide[:, label] - wide[:, others].logsumexp(1)).numpy()
    return odds


def _encoded(row: Row, known: TableFacts) -> Encoded:
    number, category, unseen = [], [], []
    for column in known.columns:
        value = row.get(column.name)
        if column.kind == "number":
            number.append(_number(value, column, known))
            continue
        text = _text(value, column)
        cell = pa.array([text], pa.string())
        if column.kind == "date":
            number.append(float(_readable(column, cell, known)))
            continue
        index = int(columns.served_indices(column, cell, known.missing)[0])
        category.append(index)
        if index == columns.UNSEEN:
            unseen.append(column.name)
    return Encoded(number=number, category=category, unseen=unseen)


def _number(value: Any, column: Column, known: TableFacts) -> float:
    if isinstance(value, str):  # a cell of a table of requests, which is written as those of training
        return float(_readable(column, pa.array([value], pa.string()), known))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise Unusable(f"expected a number in the column {column.name} and found {named(value)}")
    number = float(value)
    if not math.isfinite(number) or abs(number) > float(np.finfo(np.float32).max):
        raise Unusable(f"{number:g} in the column {column.name} is too large")
    return number


def _readable(column: Column, cell: pa.Array, known: TableFacts) -> np.float32:
    try:
        found: np.float32 = columns.numbers(column, cell, known.missing)[0]
    except Unreadable as reason:
        raise Unusable(str(reason)) from None
    return found


def _text(value: Any, column: Column) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unusable(f"expected a string in the column {column.name} and found {named(value)}")
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    if len(text) > LONGEST:
        raise Unusable(f"{len(text):,} characters in the column {column.name} are over {LONGEST:,}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable(f"the text in the column {column.name} is not Unicode") from None
    return text
