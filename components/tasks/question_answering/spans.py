"""The best answer of each window, and of a question the best one of its windows, or none.

A span's score is the sum of its ends' logits. That of no answer is the least score of NONE in any window, as in
BERT's run_squad.py (github.com/google-research/bert).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from components.contracts import Batch
from components.tasks.question_answering.windows import NONE, Asked

FOUND, SCORE, NULL, NORMALISER = "found", "score", "null", "normaliser"
"""Of a window: the positions of the best answer's ends, its score, that of no answer, and the log of all mass."""
THRESHOLD = "threshold"
"""Of a network that may find no answer: its threshold, the same for each window, float64 (N,)."""
SEVERAL, SCORES = "several", "scores"
"""Of a window: the positions of its best answers' ends, and their scores, from the best on."""
Floats = NDArray[np.float64]


def best(logits: Tensor, longest: int) -> Batch:
    """Return the best answer of each window.

    Args:
        logits: Of the ends, fp32 (2, B, T), as the network returns them.
        longest: Most tokens of an answer.

    Returns:
        `found`, int64 (B, 2); fp32 (B,): `score`, `null`, and `normaliser`, the log of the sum over pairs of ends.
    """
    start, end = logits
    score, at = _pairs(logits, longest).max(1)
    found = torch.stack([at // start.shape[1], at % start.shape[1]], 1)
    return {
        FOUND: found,
        SCORE: score,
        NULL: start[:, NONE] + end[:, NONE],
        NORMALISER: start.logsumexp(1) + end.logsumexp(1),
    }


def several(logits: Tensor, longest: int, count: int) -> Batch:
    """Return the best answers of each window.

    Args:
        logits: As of `best`.
        longest: Most tokens of an answer.
        count: Number of answers K.

    Returns:
        `several`, int64 (B, K, 2), and `scores`, fp32 (B, K), which are -inf where a window has fewer answers.
    """
    tokens = logits.shape[2]
    scores, at = _pairs(logits, longest).topk(min(count, tokens**2), 1)
    missing = (0, count - scores.shape[1])
    return {
        SEVERAL: F.pad(torch.stack([at // tokens, at % tokens], 2), (0, 0, *missing)),
        SCORES: F.pad(scores, missing, value=-torch.inf),
    }


def _pairs(logits: Tensor, longest: int) -> Tensor:
    """Return the score of each first and last token of an answer, (B, T * T), -inf where there can be none."""
    start, end = logits
    pairs: Tensor = start[:, :, None] + end[:, None]  # (B, T, T)
    positions = torch.arange(start.shape[1], device=start.device)
    distance = positions - positions[:, None]  # from the first token to the last
    allowed = (distance >= 0) & (distance < longest) & (positions > NONE)[:, None]
    return pairs.masked_fill(allowed.logical_not(), -torch.inf).flatten(1)


class Chosen(NamedTuple):
    """The best answer of each of Q questions."""

    window: NDArray[np.int64]
    """Which of all windows has it, (Q,)."""
    found: NDArray[np.int64]
    """The positions of its ends, (Q, 2)."""
    probability: Floats
    """Of the answer, among all pairs of ends in the question's windows, (Q,)."""
    null: Floats
    """By how much the score of no answer exceeds that of the answer, (Q,)."""


def choose(windows: Batch, question: Tensor) -> Chosen:
    """Return the best answer of each question.

    Args:
        windows: From `best`, of N windows.
        question: The question of each window, int64 (N,), ascending.
    """
    _, counts = question.unique_consecutive(return_counts=True)
    last = counts.cumsum(0).tolist()
    score, null, normaliser = (windows[name].double() for name in (SCORE, NULL, NORMALISER))
    rows = []
    for begin, end in zip([0, *last], last, strict=False):
        own = begin + int(score[begin:end].argmax())
        top = float(score[own])
        mass = float(normaliser[begin:end].logsumexp(0))
        rows.append((own, float(np.exp(top - mass)), float(null[begin:end].min()) - top))
    window, probability, margin = (np.array(column) for column in zip(*rows, strict=True))
    return Chosen(window.astype(np.int64), windows[FOUND].numpy()[window], probability, margin)


def joined(predictions: Iterable[Batch]) -> Batch:
    """Return the batches of predictions as one."""
    batches = list(predictions)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def threshold(null: Floats, answered: Floats, abstained: Floats) -> float:
    """Return the margin of no answer from which on abstaining gives the highest mean score.

    Args:
        null: The margins, (Q,).
        answered: The score of each question if it is answered, (Q,).
        abstained: The score if it is not: 1 for a question without an answer, else 0, (Q,).
    """
    order = np.argsort(null, kind="stable")
    total = np.cumsum(np.append(0.0, (answered - abstained)[order]))  # of answering the first k questions
    distinct = np.append(np.append(True, np.diff(null[order]) > 0), True)  # not between equal margins
    count = int(np.argmax(np.where(distinct, total, -np.inf)))
    sorted_null = null[order]
    if count == 0:
        return float(sorted_null[0] - 1)
    if count == len(null):
        return float(sorted_null[-1] + 1)
    return float((sorted_null[count - 1] + sorted_null[count]) / 2)


class Given(NamedTuple):
    """What a question is answered with."""

    text: str
    """Empty if it is not answered."""
    start: int
    """Its place in the context, -1 if it is not answered."""
    score: float
    """The probability of the answer, also of one that is not given."""
    no_answer: float
    """By how much no answer exceeds it, less the threshold; above 0 it is not given. -inf without threshold."""
    best: str
    """The answer, also if it is not given."""
    begin: int
    """The place of `best` in the context."""


def answers(
    windows: Batch, question: Tensor, contexts: Sequence[str], asked: Sequence[Asked], threshold: Tensor | None
) -> list[Given]:
    """Return what each question is answered with.

    Args:
        windows: From `best`, of N windows.
        question: The question of each window, int64 (N,), ascending.
        contexts: The context of each question.
        asked: The windows of each question.
        threshold: By how much no answer has to exceed an answer; None if there always is one.
    """
    chosen = choose(windows, question)
    own = [window for each in asked for window in each.windows]
    found = []
    for number, context in enumerate(contexts):
        first, last = chosen.found[number].tolist()
        begin, end = own[chosen.window[number]].place(first, last)
        excess = -np.inf if threshold is None else float(chosen.null[number]) - float(threshold)
        text = context[begin:end]
        shown, start = (text, begin) if excess <= 0 else ("", -1)
        found.append(Given(shown, start, float(chosen.probability[number]), excess, text, begin))
    return found


class Piece(NamedTuple):
    """A piece of a context that may be the answer."""

    text: str
    start: int
    """Its place in the context."""
    score: float
    """Its probability among all pieces."""


def pieces(
    windows: Batch, question: Tensor, contexts: Sequence[str], asked: Sequence[Asked], count: int
) -> list[list[Piece]]:
    """Return the most probable answers to each question, from the best on; each text once.

    Args:
        windows: From `best` and `several`, of N windows.
        question: The question of each window, int64 (N,), ascending.
        contexts: The context of each question.
        asked: The windows of each question.
        count: Most answers to a question.
    """
    given = answers(windows, question, contexts, asked, None)
    found = []
    first = 0
    for context, one, own in zip(contexts, given, asked, strict=True):
        last = first + len(own.windows)
        scores, ends = windows[SCORES][first:last].double(), windows[SEVERAL][first:last]
        probabilities = (scores - windows[NORMALISER][first:last].double().logsumexp(0)).exp()
        texts = {one.best: Piece(one.best, one.begin, one.score)}  # the first of equal ones, as `best` finds it
        for at in probabilities.flatten().argsort(descending=True, stable=True).tolist():
            window, place = divmod(at, scores.shape[1])
            if len(texts) == count or not probabilities[window, place]:
                break
            begin, end = own.windows[window].place(*ends[window, place].tolist())
            text = context[begin:end]
            texts.setdefault(text, Piece(text, begin, float(probabilities[window, place])))
        found.append([*texts.values()])
        first = last
    return found
