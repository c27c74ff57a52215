"""From what the network says of each frame to text, with the time and the confidence of each word."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from components.sound import character_score, ctc, prefix_search
from components.sound.prefix_search import Scorer, WordScore
from components.tasks.speech_to_text.model import Recogniser
from components.tasks.speech_to_text.params import SearchParams
from components.tasks.speech_to_text.prepare import SUBSAMPLING
from components.text import tokens


def best(model: Recogniser, log_probs: Tensor, frames: Tensor, search: SearchParams) -> list[list[int]]:
    """Return the best text of each recording, as tokens.

    Args:
        model: The network, with its tokens and its language model.
        log_probs: Its results, (B, T, C), of any device.
        frames: Their numbers, (B,).
        search: A beam of 1 takes the likeliest path.
    """
    if search.beam == 1:
        return ctc.greedy(log_probs, frames, model.blank)
    scorer = scorer_of(model, search)
    rows, lengths = log_probs.detach().cpu().numpy(), frames.cpu().tolist()
    return [
        list(prefix_search.search(own[:length], model.blank, search.beam, scorer)[0].tokens)
        for own, length in zip(rows, lengths, strict=True)
    ]


def scorer_of(model: Recogniser, search: SearchParams) -> Scorer | None:
    """Return the language model of a search, if it has one: a network of characters, or else n-grams of words."""
    if not search.weight or not (model.language_model or model.ngrams):
        return None
    tokenizer = model.tokenizer
    pieces = tokens.pieces(tokenizer, range(model.blank))
    if model.language_model:
        return character_score.of_tokens(*model.language_model, pieces, search.weight, search.word_score)
    assert model.ngrams is not None, "it has one of the two"

    def decode(ids: Sequence[int]) -> str:
        return tokens.decode(tokenizer, ids)

    return WordScore(model.ngrams, pieces, decode, search.weight, search.word_score)


def text_of(model: Recogniser, ids: Sequence[int]) -> str:
    """Return the text of tokens, with one space between words."""
    return " ".join(tokens.decode(model.tokenizer, ids).split())


@dataclass(frozen=True)
class Word:
    """A word in a recording."""

    word: str
    start: float
    end: float
    """In seconds."""
    confidence: float
    """Geometric mean of its frames' probabilities on the likeliest path of the text."""


def timed(model: Recogniser, log_probs: Tensor, ids: Sequence[int], hop: float) -> tuple[list[Word], float]:
    """Return the words of a text with their times, and the text's confidence: the same mean over all its frames.

    Args:
        model: The network.
        log_probs: Its results for the recording, (T, C), on the CPU.
        ids: The text, as tokens.
        hop: Seconds between frames of the spectrogram.
    """
    spans, scores = ctc.align(log_probs, ids, model.blank)
    found = []
    for first, last in words_of(model, ids):
        start, end = spans[first].first, spans[last - 1].last + 1
        own = math.exp(sum(scores[start:end]) / (end - start))
        word = tokens.decode(model.tokenizer, ids[first:last]).strip()
        step = SUBSAMPLING * hop
        found.append(Word(word, round(start * step, 3), round(end * step, 3), own))
    return found, math.exp(sum(scores) / max(len(scores), 1))


def words_of(model: Recogniser, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return where each word begins and ends among the tokens, without tokens that are spaces alone."""
    found: list[tuple[int, int]] = []
    begin = None
    for place, piece in enumerate(tokens.pieces(model.tokenizer, ids)):
        if piece[:1] == " " and begin is not None:
            found.append((begin, place))
            begin = None
        if begin is None and piece.strip():
            begin = place
    return [*found, (begin, len(ids))] if begin is not None else found
