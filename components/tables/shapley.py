"""Reasons of an answer: Shapley values of the columns, estimated from random orders of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.tables.facts import TableFacts

ORDERS = 16
"""Random orders of the columns; each is also used backwards, which makes the estimate less noisy."""


class Features(NamedTuple):
    """The features of one row."""

    number: NDArray[np.float32]
    """(numbers,), with NaN for missing ones."""
    category: NDArray[np.int32]
    """(categories,)."""


Answer = Callable[[NDArray[np.float32], NDArray[np.int32]], NDArray[np.float64]]
"""Maps features (B, numbers) and (B, categories) to one number for each row, (B,)."""


def usual_row(known: TableFacts) -> Features:
    """Return the row of medians and most frequent categories of the training rows."""
    number = [float(np.interp(0, column.scores, column.quantiles)) for column in known.numbers]
    return Features(np.array(number, np.float32), np.array([column.usual for column in known.categories], np.int32))


def values(answer: Answer, row: Features, usual: Features, known: TableFacts) -> dict[str, float]:
    """Return how much each column moves the answer away from that of the usual row.

    In an order of the columns, the share of a column is the change of the answer when its value replaces the usual
    one, after those before it in the order. The Shapley value is the mean over all orders (Štrumbelj and Kononenko
    2014, Knowledge and Information Systems 41), here over `ORDERS` and their reverses. The values add up exactly to
    the difference between both answers.

    Args:
        answer: The model.
        row: What is explained.
        usual: What it is compared with.
        known: The columns.
    """
    numbers, count = len(row.number), len(row.number) + len(row.category)
    if not count:
        return {}
    generator = np.random.default_rng(0)
    orders = [generator.permutation(count) for _ in range(ORDERS)]
    orders += [order[::-1] for order in orders]
    # Row i of an order has its first i columns replaced.
    replaced = np.stack([np.arange(count + 1)[:, None] > np.argsort(order)[None] for order in orders])
    flat = replaced.reshape(-1, count)
    found = answer(
        np.where(flat[:, :numbers], row.number, usual.number).astype(np.float32),
        np.where(flat[:, numbers:], row.category, usual.category).astype(np.int32),
    ).reshape(len(orders), count + 1)
    total = np.zeros(count)
    for order, own in zip(orders, found, strict=True):
        total[order] += np.diff(own)
    names = [column.name for column in (*known.numbers, *known.categories)]
    return dict(zip(names, (total / len(orders)).tolist(), strict=True))
