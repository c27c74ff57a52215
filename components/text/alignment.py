"""Where the tokens of any tokenizer end in a text, found by their readable strings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.display import brief
from components.errors import PedigreeError

LOST = "\ufffd"
"""Stands for a part of a character in the readable string of a byte pair."""


def ends(text: str, pieces: Sequence[str]) -> NDArray[np.int64]:
    """Return the character after each of a text's last tokens.

    Tokens that are parts of characters have U+FFFD for them. How many characters stand between two other tokens is
    seen from where these fit, and tokens between them end at equal distances.

    Args:
        text: The text.
        pieces: Its last n tokens as readable strings.

    Returns:
        The number of characters up to each token's end, (n,).

    Raises:
        PedigreeError: the tokens are those of another text.
    """
    found: list[int] = []
    parts: list[int] = []
    position = len(text)

    def spread(characters: int) -> None:
        done = np.append(0, np.cumsum(parts))
        found.extend((position - characters * done[:-1] // max(done[-1], 1)).tolist())
        parts.clear()

    for piece in reversed(pieces):
        if LOST in piece:
            parts.append(len(piece))
            continue
        least, most = -(-sum(parts) // 4), sum(parts)
        fits = ((n, _before_spaces(text, position - n, piece)) for n in range(least, most + 1))
        between, end = next(((n, end) for n, end in fits if end is not None), (0, None))
        if end is None:
            raise PedigreeError(
                f"its tokens are not those of the test text: {brief(piece)} is not where it should be"
            )
        spread(between)
        found.append(end)
        position = end - len(piece)
    spread(min(position, sum(parts)))
    return np.array(found[::-1], np.int64)


def _before_spaces(text: str, position: int, piece: str) -> int | None:
    """Return where a token ends that is before a position, or before spaces there, which are no part of words."""
    while position > 0 and not text.endswith(piece, 0, position):
        if text[position - 1] != " ":
            return None
        position -= 1
    return position if position >= len(piece) else None
