"""Requests to a served model, answered in batches: one answer or rejection per row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from components import display
from components.contracts import Kind, Rejected, Row
from components.datasets.ingest import Unusable
from components.display import brief
from components.errors import PedigreeError
from components.params import nearest

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
LISTS = ("binaries", "strings", "doubles", "records")
"""Kinds whose values are lists."""


def answer_rows(
    rows: Sequence[Row],
    read: Callable[[Row], T],
    answer: Callable[[list[T]], Sequence[Row]],
    noun: str,
    size: int,
) -> list[Row | Rejected]:
    """Answer the rows that can be read, and reject each other row with the reason.

    Args:
        rows: The rows of the request.
        read: Maps a row to the network's input; raises Unusable with the reason.
        answer: Maps a list of inputs to one answer each.
        noun: The task's word for a sample, such as "image".
        size: Maximum number of rows in a batch.
    """
    results: list[Row | Rejected] = []
    for first in range(0, len(rows), size):
        inputs = [_read(read, noun, row) for row in rows[first : first + size]]
        usable = [each for each in inputs if not isinstance(each, Rejected)]
        answers: Iterator[Row] = iter(answer(usable) if usable else ())
        results += [each if isinstance(each, Rejected) else next(answers) for each in inputs]
    return results


def _read(read: Callable[[Row], T], noun: str, row: Row) -> T | Rejected:
    try:
        return read(row)
    except Unusable as problem:
        remedy = "" if ";" in str(problem) else "; send another"  # some reasons end with their own remedy
        return Rejected(f"the {noun} cannot be used: {problem}{remedy}")


def settings(kind: type[M], given: Mapping[str, Any]) -> M:
    """Return the params of a request.

    Args:
        kind: What they may be, with their defaults.
        given: Those of the request.

    Raises:
        PedigreeError: one is unknown or invalid.
    """
    fields = kind.model_fields
    problems = [
        f"{brief(name)} is unknown{nearest(str(name), fields) or ': leave it out'}"
        for name in given
        if name not in fields
    ]
    try:
        chosen = kind.model_validate({name: given[name] for name in fields if name in given})
    except ValidationError as error:
        problems += [f"{e['loc'][0]} = {brief(e['input'])}: {e['msg']}" for e in error.errors()]
    if problems:
        raise PedigreeError(f"the request's params: {'; '.join(display.first(problems))}")
    return chosen


def unfolded(rows: Sequence[Row], inputs: Mapping[str, Kind]) -> list[Row]:
    """Return the rows of a request, of which MLflow's server gives several as one row of lists in some formats.

    These are `inputs` and `instances` whose values are texts, as `{"inputs": {"image": [first, second]}}`.

    Args:
        rows: The rows as MLflow gives them.
        inputs: The columns that the model takes.
    """
    if len(rows) != 1:
        return list(rows)
    (row,) = rows
    lists = {name: list(value) for name, value in row.items() if _several(value, inputs.get(name))}
    if not row or len(lists) < len(row) or len({len(values) for values in lists.values()}) != 1:
        return [row]
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _several(value: Any, kind: Kind | None) -> bool:
    """Return whether a value is a list of values of a kind; an empty one would leave no row to answer or reject."""
    if not isinstance(value, list | tuple | np.ndarray) or not len(value):
        return False
    return kind not in LISTS or isinstance(value[0], list | tuple | np.ndarray)
