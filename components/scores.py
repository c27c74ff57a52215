"""Scores shared by several tasks, as functions of weighted rows; see `contracts.Score`."""

import math
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


def _ratio(numerator: str, denominator: str | None, columns: Columns, weights: NDArray[np.float64]) -> float:
    total = weights.sum() if denominator is None else weights @ columns[denominator]
    return float(weights @ columns[numerator] / total) if total else math.nan


def _perplexity(nats: str, tokens: str, columns: Columns, weights: NDArray[np.float64]) -> float:
    return exponential(_ratio(nats, tokens, columns, weights))


def exponential(loss: float) -> float:
    """Return the perplexity of a mean loss in nats."""
    return math.exp(min(loss, 700))  # larger results would overflow
