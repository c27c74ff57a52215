"""Prefix beam search: the likeliest text, not the likeliest path, of a network trained with CTC.

Hannun et al. 2014 (arXiv:1408.2873, algorithm 1): the probability of a text is the sum over all its paths, kept
apart by whether the last frame is a blank, and the language model weighs a word as soon as it is complete.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.text.ngrams import END, START, Ngrams

LEAST = -12.0
"""Tokens less probable than this in a frame, in nats, are passed over, unless they are needed for exactness."""
Tokens = tuple[int, ...]


class Said(Protocol):
    """What a language model knows of the beginning of a text."""

    @property
    def total(self) -> float:
        """Score of the beginning, as far as it has one."""


class Scorer(Protocol):
    """A language model, which scores texts while they are found. States are its own and never change."""

    def start(self) -> Any:
        """Return the state of an empty text."""

    def ready(self, states: Sequence[Any]) -> None:
        """Compute at once what the extensions of several states need."""

    def extended(self, state: Any, token: int) -> Any:
        """Return the state after one more token; None if no text begins so."""

    def finished(self, state: Any) -> float:
        """Return the score of a text that ends here."""


@dataclass(frozen=True)
class WordScore:
    """What n-grams say of the words of a text."""

    ngrams: Ngrams
    pieces: Sequence[str]
    """The text of each token; one that begins a word begins with a space, or is one."""
    decode: Callable[[Sequence[int]], str]
    """Maps tokens to text."""
    weight: float
    """Weight of the model's log-probability."""
    bonus: float
    """Added for each word."""

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        return frozenset(word[:end] for word in self.ngrams.words for end in range(len(word) + 1))

    def start(self) -> "Words":
        """Return the state of an empty text."""
        return Words()

    def ready(self, states: Sequence["Words"]) -> None:
        """Need nothing."""

    def extended(self, state: "Words", token: int) -> "Words | None":
        """Return the state after one more token; None if no word of a closed model begins so."""
        piece, own = self.pieces[token], (*state.word, token)
        if piece[:1] == " ":
            completed = self._completed(state)
            state = Words(completed.total, completed.history, ())
            own = (token,) if piece.strip() else ()
        if math.isinf(state.total):
            return None
        if self.ngrams.is_closed and own:
            text = self.decode(own).strip()
            if "\ufffd" not in text and text not in self._beginnings:
                return None
        return Words(state.total, state.history, own)

    def finished(self, state: "Words") -> float:
        """Return the score of a text that ends here."""
        completed = self._completed(state)
        return completed.total + self.weight * self.ngrams.log_probability(completed.history, END)

    def _completed(self, state: "Words") -> "Words":
        word = self.decode(state.word).strip() if state.word else ""
        if not word:
            return state
        known = self.ngrams.log_probability(state.history, word)
        history = (*state.history, word)[-self.ngrams.order :]
        return Words(state.total + self.weight * known + self.bonus, history, ())


@dataclass(frozen=True)
class Words:
    """The words of the beginning of a text."""

    total: float = 0.0
    """Score of the complete words."""
    history: tuple[str, ...] = (START,)
    word: Tokens = ()
    """Tokens of the word that is not complete yet."""


@dataclass
class _Beginning:
    """The beginning of a text, and the log-probability of its paths."""

    said: Said
    blank: float = -math.inf
    """Of those that end with a blank."""
    token: float = -math.inf
    """Of those that end with the last token."""

    @property
    def total(self) -> float:
        return _add(self.blank, self.token)


@dataclass(frozen=True)
class Found:
    """A text, as tokens."""

    tokens: Tokens
    log_probability: float
    """Of the text given the sound, in nats, as far as its paths were followed."""
    score: float
    """The log-probability with what the language model adds: more is better."""


def search(
    log_probs: NDArray[np.float32], blank: int, beam: int, scorer: Scorer | None = None, least: float = LEAST
) -> list[Found]:
    """Return the best texts of a recording, at most `beam`, the best first.

    Args:
        log_probs: (T, C), in nats.
        blank: The index of the blank.
        beam: How many beginnings are followed. If it is as large as the number of texts, and `least` is -inf, the
            result is exact.
        scorer: The language model, or None.
        least: Least log-probability of a token in a frame.
    """
    beginnings: dict[Tokens, _Beginning] = {(): _Beginning(scorer.start() if scorer else Words(), blank=0.0)}
    for row in log_probs.astype(np.float64):
        if scorer:
            scorer.ready([each.said for each in beginnings.values()])
        likely = np.flatnonzero(row >= least).tolist()
        extended: dict[Tokens, _Beginning] = {}
        for tokens, now in beginnings.items():
            total = now.total
            same = extended.setdefault(tokens, _Beginning(now.said))
            same.blank = _add(same.blank, total + row[blank])
            if tokens:
                same.token = _add(same.token, now.token + row[tokens[-1]])
            for token in likely:
                if token == blank:
                    continue
                longer = (*tokens, token)
                # A token twice in a row is one, unless a blank stands between.
                added = (now.blank if tokens and tokens[-1] == token else total) + row[token]
                if math.isinf(added):
                    continue
                if (then := extended.get(longer)) is None:
                    said = scorer.extended(now.said, token) if scorer else now.said
                    if said is None:
                        continue
                    then = extended[longer] = _Beginning(said)
                then.token = _add(then.token, added)
        best = sorted(extended.items(), key=lambda each: (-(each[1].total + each[1].said.total), each[0]))
        beginnings = dict(best[:beam])
    if scorer:
        scorer.ready([each.said for each in beginnings.values()])
    found = [
        Found(tokens, each.total, each.total + (scorer.finished(each.said) if scorer else 0.0))
        for tokens, each in beginnings.items()
    ]
    return sorted(found, key=lambda each: (-each.score, each.tokens))


def _add(one: float, other: float) -> float:
    """Return the logarithm of the sum of two numbers, given theirs."""
    if one < other:
        one, other = other, one
    return one + math.log1p(math.exp(other - one)) if other > -math.inf else one
