"""Scores shared by several tasks, as functions of weighted rows; see `contracts.Score`."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from components.contracts import Better, Columns, Score


def ratio(name: str, better: Better, numerator: str, denominator: str | None = None, share: bool = False) -> Score:
    """Return a score that divides the weighted sum of a column by that of another, or by the sum of the weights."""
    return Score(name, better, partial(_ratio, numerator, denominator), share)


def perplexity(nats: str, tokens: str) -> Score:
    """Return a score that is the exponential of the mean nats per token."""
    return Score("perplexity", "less", partial(_perplexity, nats, tokens))


def of_class(score: Score, column: str, index: int, name: str) -> Score:
    """Return a score of the rows of one class alone, called `<score>/<name>`.

    Args:
        score: The score of all rows.
        column: The column with the index of each row's class.
        index: The class.
        name: Its name, as metrics are named.
    """
    return replace(
        score,
        name=f"{score.name}/{name}",
        of=partial(_of_class, score.of, column, index),
        counted=partial(_counted_of_class, score.counted, column, index),
    )


def _of_class(
    of: Callable[[Columns, NDArray[np.float64]], float],
    column: str,
    index: int,
    columns: Columns,
    weights: NDArray[np.float64],
) -> float:
    return of(columns, weights * (columns[column] == index))


def _counted_of_class(
    counted: Callable[[Columns], NDArray[np.bool_]] | None, column: str, index: int, columns: Columns
) -> NDArray[np.bool_]:
    own: NDArray[np.bool_] = columns[column] == index
    return own if counted is None else own & counted(columns)


def _ratio(numerator: str, denominator: str | None, columns: Columns, weights: NDArray[np.float64]) -> float:
    total = weights.sum() if denominator is None else weights @ columns[denominator]
    return float(weights @ columns[numerator] / total) if total else math.nan


def _perplexity(nats: str, tokens: str, columns: Columns, weights: NDArray[np.float64]) -> float:
    return exponential(_ratio(nats, tokens, columns, weights))


def exponential(loss: float) -> float:
    """Return the perplexity of a mean loss in nats."""
    return math.exp(min(loss, 700))  # larger results would overflow
