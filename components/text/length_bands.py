"""Groups of texts by their number of words, for results by length."""

import numpy as np

BANDS = (1, 5, 9, 17, 33)
"""Lower bounds of the groups."""


def of_words(words: int) -> str:
    """Return the name of the group of a text with so many words, which is valid in the name of an MLflow metric."""
    band = int(np.digitize(max(1, words), BANDS)) - 1
    if band + 1 == len(BANDS):
        return f"{BANDS[band]} or more words"
    return f"{BANDS[band]}-{BANDS[band + 1] - 1} words"


def of_text(text: str) -> str:
    """Return the name of a text's group."""
    return of_words(len(text.split()))


NAMES = tuple(map(of_words, BANDS))
"""The names of all groups, that of the shortest texts first."""
