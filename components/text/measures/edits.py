"""The fewest edits that make one sequence of another: substitutions, deletions and insertions.

The distance of Levenshtein (1966), on which word and character error rates are based.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=Hashable)


class Edits(NamedTuple):
    """How often something stands in another's place, is missing, or is too much."""

    substitutions: int
    deletions: int
    insertions: int


def counts(reference: Sequence[T], hypothesis: Sequence[T]) -> Edits:
    """Count the edits that made `hypothesis` of `reference`, in one of the shortest alignments."""
    pairs = aligned(reference, hypothesis)
    wrong = [(one, other) for one, other in pairs if one != other]
    deletions = sum(other is None for _, other in wrong)
    insertions = sum(one is None for one, _ in wrong)
    return Edits(len(wrong) - deletions - insertions, deletions, insertions)


def aligned(reference: Sequence[T], hypothesis: Sequence[T]) -> list[tuple[T | None, T | None]]:
    """Return which element of the hypothesis stands for which of the reference, with None where there is none."""
    table = _distances(reference, hypothesis)
    i, j = len(reference), len(hypothesis)
    pairs: list[tuple[T | None, T | None]] = []
    while i or j:
        if i and j and table[i, j] == table[i - 1, j - 1] + (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((reference[i], hypothesis[j]))
        elif i and table[i, j] == table[i - 1, j] + 1:
            i -= 1
            pairs.append((reference[i], None))
        else:
            j -= 1
            pairs.append((None, hypothesis[j]))
    return pairs[::-1]


def _distances(reference: Sequence[T], hypothesis: Sequence[T]) -> NDArray[np.int64]:
    """Return the number of edits between the first i of one and the first j of the other, (I + 1, J + 1)."""
    known: dict[T, int] = {}
    own, other = (
        np.array([known.setdefault(each, len(known)) for each in sequence], np.int64)
        for sequence in (reference, hypothesis)
    )
    steps = np.arange(len(other) + 1)
    table = np.empty((len(own) + 1, len(other) + 1), np.int64)
    table[0] = steps
    for i, each in enumerate(own.tolist(), start=1):
        best = table[i - 1] + 1
        best[1:] = np.minimum(best[1:], table[i - 1, :-1] + (other != each))
        # Insertions: from the best place before, one edit a step.
        table[i] = np.minimum.accumulate(best - steps) + steps
    return table
