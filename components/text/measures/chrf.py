"""chrF++ from statistics of each sentence, which add up: equal to sacrebleu's chrF with two word orders.

Popovic 2015 and 2017 (aclanthology.org/W15-3049 and W17-4770): the F score, with twice the weight on recall, of
character n-grams up to 6 without spaces and of word n-grams up to 2, averaged over the orders.
"""

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CHARACTERS, WORDS, BETA = 6, 2, 2
"""Longest n-grams, and the weight of recall."""
COLUMNS = 3 * (CHARACTERS + WORDS)
"""For each order: n-grams of the translation, of the reference, and of both."""
SIGNATURE = f"nrefs:1|case:mixed|eff:yes|nc:{CHARACTERS}|nw:{WORDS}|space:no"
"""The signature in sacrebleu's format, without a version."""
_MARKS = frozenset(string.punctuation)


def statistics(translation: str, reference: str) -> NDArray[np.float64]:
    """Return what chrF++ is computed from, (COLUMNS,); that of a corpus is the sum."""
    rows: list[tuple[int, int, int]] = []
    for cut, orders in ((_characters, CHARACTERS), (_words, WORDS)):
        own, other = cut(translation), cut(reference)
        for order in range(1, orders + 1):
            found, wanted = _ngrams(own, order), _ngrams(other, order)
            # An order that the reference lacks does not count, as nothing could match.
            rows.append((found.total() if wanted else 0, wanted.total(), (found & wanted).total()))
    return np.array(rows, np.float64).flatten()


def _characters(text: str) -> str:
    return "".join(text.split())


def _words(text: str) -> list[str]:
    return [part for word in text.split() for part in _without_mark(word)]


def _without_mark(word: str) -> list[str]:
    """Separate one mark from a word: the last character, or else the first."""
    if len(word) > 1 and word[-1] in _MARKS:
        return [word[:-1], word[-1]]
    if len(word) > 1 and word[0] in _MARKS:
        return [word[0], word[1:]]
    return [word]


def _ngrams(items: Sequence[str], order: int) -> Counter[Sequence[str]]:
    """Count the n-grams of characters, which are texts, or of words, which are tuples."""
    whole = items if isinstance(items, str) else tuple(items)
    return Counter(whole[first : first + order] for first in range(len(whole) - order + 1))


def score(sums: NDArray[np.float64]) -> float:
    """Return chrF++, 0 to 100, of summed statistics (COLUMNS,)."""
    found, wanted, both = sums.reshape(-1, 3).T
    present = (found > 0) & (wanted > 0)
    if not both.any():
        return 0.0
    precision = float((both[present] / found[present]).mean())
    recall = float((both[present] / wanted[present]).mean())
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
