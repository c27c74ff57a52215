"""The search finds the likeliest text; with n-grams, the one that torchaudio's decoder finds."""

import math
from itertools import groupby, product

import numpy as np
import pytest
import torch

from components.sound import prefix_search
from components.sound.prefix_search import WordScore
from components.text import ngrams

BLANK = 3
LETTERS = " ab"
SENTENCES = [text.split() for text in ("ab ba", "ab ab", "ba", "a ab", "b ba ab")]


def log_probs(seed: int, steps: int = 5, scale: float = 1.5) -> np.ndarray:
    logits = scale * np.random.default_rng(seed).standard_normal((steps, BLANK + 1))
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


def totals(rows: np.ndarray) -> dict[tuple[int, ...], float]:
    """Return the log-probability of every text, by adding up all paths."""
    found: dict[tuple[int, ...], float] = {}
    for path in product(range(BLANK + 1), repeat=len(rows)):
        text = tuple(token for token, _ in groupby(path) if token != BLANK)
        own = float(sum(rows[t, token] for t, token in enumerate(path)))
        found[text] = float(np.logaddexp(found.get(text, -math.inf), own))
    return found


def scorer(model: ngrams.Ngrams, weight: float = 0.7, bonus: float = 0.3) -> WordScore:
    return WordScore(model, LETTERS, lambda ids: "".join(LETTERS[i] for i in ids), weight, bonus)


def added(model: ngrams.Ngrams, text: tuple[int, ...], weight: float, bonus: float) -> float:
    words = "".join(LETTERS[i] for i in text).split()
    history: tuple[str, ...] = (ngrams.START,)
    total = 0.0
    for word in words:
        total += weight * model.log_probability(history, word) + bonus
        history = (*history, word)
    return total + weight * model.log_probability(history, ngrams.END)


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_search_finds_every_text_with_its_probability(seed):
    rows = log_probs(seed)
    expected = totals(rows)
    found = prefix_search.search(rows, BLANK, 10_000, least=-math.inf)
    assert {each.tokens for each in found} == expected.keys()
    assert found[0].tokens == max(expected, key=expected.__getitem__)
    for each in found:
        assert each.log_probability == pytest.approx(expected[each.tokens], abs=1e-5)
        assert each.score == each.log_probability


@pytest.mark.parametrize("seed", range(8))
def test_with_n_grams_the_best_text_is_that_of_brute_force(seed):
    rows, model = log_probs(seed), ngrams.counted(SENTENCES, 2)
    expected = {text: total + added(model, text, 0.7, 0.3) for text, total in totals(rows).items()}
    best, *_ = prefix_search.search(rows, BLANK, 10_000, scorer(model), least=-math.inf)
    assert best.tokens == max(expected, key=expected.__getitem__)
    assert best.score == pytest.approx(expected[best.tokens], abs=1e-5)


def test_words_that_a_closed_model_lacks_are_never_found():
    model = ngrams.counted(SENTENCES, 2)
    closed = ngrams.Ngrams(2, {words: each for words, each in model.entries.items() if words != (ngrams.UNKNOWN,)})
    for seed in range(20):
        best, *_ = prefix_search.search(log_probs(seed, 8), BLANK, 50, scorer(closed))
        assert {*"".join(LETTERS[i] for i in best.tokens).split()} <= model.words


def test_a_narrow_search_follows_at_most_so_many_texts():
    rows = log_probs(0, 20)
    found = prefix_search.search(rows, BLANK, 3)
    assert len(found) == 3
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_nothing_is_heard_in_no_frame():
    (only,) = prefix_search.search(np.zeros((0, 4), np.float32), BLANK, 4)
    assert (only.tokens, only.score) == ((), 0.0)


def reference(tmp_path, model: ngrams.Ngrams, weight: float, bonus: float):
    """Return torchaudio's decoder for the words of a model, with the same scores; KenLM has base-10 logarithms."""
    pytest.importorskip("flashlight.lib.text.decoder", reason="flashlight-text is not installed")
    from torchaudio.models.decoder import ctc_decoder

    (tmp_path / "model.arpa").write_text(model.arpa())
    lines = [f"{word} {' '.join(word)} |\n" for word in sorted(model.words)]
    (tmp_path / "lexicon.txt").write_text("".join(lines))
    return ctc_decoder(
        lexicon=str(tmp_path / "lexicon.txt"),
        tokens=["|", "a", "b", "-"],
        lm=str(tmp_path / "model.arpa"),
        beam_size=500,
        beam_threshold=1e4,
        lm_weight=weight * math.log(10),
        word_score=bonus,
        log_add=True,
    )


def test_with_n_grams_the_best_words_are_those_of_torchaudios_decoder(tmp_path):
    model = ngrams.counted(SENTENCES, 2)
    closed = ngrams.Ngrams(2, {words: each for words, each in model.entries.items() if words != (ngrams.UNKNOWN,)})
    theirs = reference(tmp_path, model, 0.7, 0.3)
    for seed in range(30):
        # Sure, as trained networks are: theirs also adds up texts that differ only in words before the n-gram's.
        rows = log_probs(seed, 10, scale=5)
        rows[-1] = np.log([0.997, 0.001, 0.001, 0.001])  # their words end with a space each
        totals: dict[tuple[str, ...], float] = {}  # theirs adds up texts that differ only in spaces
        for each in prefix_search.search(rows, BLANK, 500, scorer(closed), least=-math.inf):
            words = tuple("".join(LETTERS[i] for i in each.tokens).split())
            totals[words] = float(np.logaddexp(totals.get(words, -math.inf), each.score))
        ((expected, *_),) = theirs(torch.from_numpy(rows)[None])
        assert max(totals, key=totals.__getitem__) == tuple(expected.words), seed
