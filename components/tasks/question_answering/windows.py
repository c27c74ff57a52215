"""Windows of tokens: `[CLS] question [SEP] part of the context [SEP]`, and where their tokens stand in the context.

A context that is too long for one window has several that overlap, as in BERT's run_squad.py (Devlin et al. 2019,
arXiv:1810.04805).
"""

import unicodedata
from functools import lru_cache
from typing import NamedTuple

from tokenizers import Tokenizer

from components.tasks.question_answering.params import SPECIAL
from components.text import wordpiece

NONE = 0
"""The position, of `[CLS]`, at which an answer begins and ends that the window does not have."""
Place = tuple[int, int]
"""First character and the one after the last."""


class Cut(NamedTuple):
    """How contexts are divided."""

    longest: int
    """Most tokens of a window."""
    question: int
    """Most tokens of a question."""
    overlap: int
    """Tokens that successive windows share."""


class Window(NamedTuple):
    """A window."""

    ids: list[int]
    first: int
    """How many of the tokens are the question's, with the special ones around it; the context's follow."""
    places: list[Place]
    """Of each token of the context in it, in the whole context."""

    def span(self, place: Place) -> tuple[int, int]:
        """Return the positions of the first and last token of a piece of the context, or NONE twice."""
        inside = [
            position
            for position, (begin, end) in enumerate(self.places, self.first)
            if begin < place[1] and end > place[0]
        ]
        # Without its ends, which another window has, it would be another answer.
        whole = inside and self.places[0][0] <= place[0] and self.places[-1][1] >= place[1]
        return (inside[0], inside[-1]) if whole else (NONE, NONE)

    def place(self, start: int, end: int) -> Place:
        """Return where the tokens from one position to another stand in the context."""
        return self.places[start - self.first][0], self.places[end - self.first][1]


class Asked(NamedTuple):
    """A question's windows."""

    windows: list[Window]
    cut: bool
    """Whether the question has more tokens than are read."""


class Windows:
    """Makes windows; of successive questions about one context, its tokens are found once.

    Args:
        tokenizer: A BERT's.
        cut: How contexts are divided.
    """

    def __init__(self, tokenizer: Tokenizer, cut: Cut) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.size = cut
        known = tokenizer.get_vocab()
        self.cls, self.sep = known[wordpiece.CLS], known[wordpiece.SEP]
        self._tokens = lru_cache(maxsize=8)(self._encoded)

    def of(self, question: str, context: str) -> Asked:
        """Return the windows of a question and a context, at least one; a context without tokens has none."""
        asked, _ = self._tokens(question)
        ids, places = self._tokens(context)
        before = [self.cls, *asked[: self.size.question], self.sep]
        room = self.size.longest - len(before) - (SPECIAL - 2)
        windows = [
            Window([*before, *ids[begin : begin + room], self.sep], len(before), places[begin : begin + room])
            for begin in _begins(len(ids), room, self.size.overlap)
        ]
        return Asked(windows, len(asked) > self.size.question)

    def _encoded(self, text: str) -> tuple[list[int], list[Place]]:
        found = self.tokenizer.encode(text, add_special_tokens=False)
        return found.ids, [_with_marks(text, place) for place in found.offsets]


def _begins(count: int, room: int, overlap: int) -> range:
    """Return the first token of each window of `room` tokens, the last of which ends with the context."""
    return range(0, max(count - overlap, min(count, 1)), room - overlap)


def _with_marks(text: str, place: Place) -> Place:
    """Return a token's place with the accents that follow its last letter as characters of their own."""
    begin, end = place
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return begin, end
