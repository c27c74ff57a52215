"""BLEU and chrF++ equal sacrebleu's, for a corpus and for any sentences of it, and change as they should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.text.measures import bleu, chrf
from components.text.measures.bleu import Convention

CONVENTIONS = [Convention(case, tokenizer) for case in ("mixed", "lc") for tokenizer in ("13a", "none")]
PAIRS = [
    ("A man is riding a red bike.", "A man rides a red bicycle."),
    ("Two dogs (both brown) run, 3.5 km, at 10-12 km/h!", "Two brown dogs run 3,5 km at 10-12 km/h."),
    ('He said: "no" &amp; left...', "He said &quot;No&quot; & left ."),
    ("", "nothing was translated"),
    ("x", "y"),
    ("the the the the the", "the cat"),
    ("l'été — déjà vu, «oui»", "L'été: déjà-vu, «oui»?"),
    ("don't 'quote' -- it's 5.", "don't 'quote' it's 5."),
    ("a\u2028b\tc  d ", "a b c d"),
]
WORDS = st.lists(
    st.sampled_from(
        ["the", "a", "cat", "Cat", "3.5", "1,000", "-", "--", "x.", ",y", "&lt;", "'s", "é!", "(ab)", "…"]
    ),
    max_size=9,
).map(" ".join)
CORPUS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4)


def own_bleu(pairs, convention: Convention) -> float:
    return bleu.score(sum(bleu.statistics(*pair, convention) for pair in pairs))


def own_chrf(pairs) -> float:
    return chrf.score(sum(chrf.statistics(*pair) for pair in pairs))


@pytest.fixture(scope="module")
def metrics():
    return pytest.importorskip("sacrebleu.metrics", reason="sacrebleu is in the extra dev")


def reference_of(metric, pairs) -> float:
    translations, references = zip(*pairs, strict=True)
    return metric.corpus_score(list(translations), [list(references)]).score


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda each: each.signature)
def test_bleu_equals_sacrebleus(metrics, convention):
    metric = metrics.BLEU(lowercase=convention.case == "lc", tokenize=convention.tokenizer, force=True)

    @settings(max_examples=60)
    @given(CORPUS)
    def compare(pairs):
        assert own_bleu(pairs, convention) == pytest.approx(reference_of(metric, pairs), abs=1e-9)

    compare()
    for pairs in (PAIRS, *([pair] for pair in PAIRS)):
        assert own_bleu(pairs, convention) == pytest.approx(reference_of(metric, pairs), abs=1e-9)
    signature = str(metric.get_signature()).rpartition("|version")[0]
    assert convention.signature == signature


def test_chrf_equals_sacrebleus(metrics):
    metric = metrics.CHRF(word_order=2)

    @settings(max_examples=60)
    @given(CORPUS)
    def compare(pairs):
        assert own_chrf(pairs) == pytest.approx(reference_of(metric, pairs), abs=1e-9)

    compare()
    for pairs in (PAIRS, *([pair] for pair in PAIRS)):
        assert own_chrf(pairs) == pytest.approx(reference_of(metric, pairs), abs=1e-9)
    assert str(metric.get_signature()).rpartition("|version")[0] == chrf.SIGNATURE


def test_a_translation_equal_to_its_reference_has_100_and_one_without_a_common_word_0():
    mixed = Convention("mixed", "13a")
    text = "Two dogs run over a field."
    assert own_bleu([(text, text)], mixed) == pytest.approx(100)
    assert own_chrf([(text, text)]) == pytest.approx(100)
    assert own_bleu([("uno", text)], mixed) == 0
    assert own_chrf([("ZZZ", text)]) == 0


def test_lower_case_and_no_tokenizer_are_conventions_of_their_own():
    pair = [("A Man sleeps on a bench.", "a man sleeps on a bench .")]
    scores = {each.signature: own_bleu(pair, each) for each in CONVENTIONS}
    assert len({round(value, 6) for value in scores.values()}) == 4
    assert scores[Convention("lc", "13a").signature] == pytest.approx(100)


def test_a_short_translation_is_punished():
    mixed = Convention("mixed", "13a")
    text = "one two three four five six seven eight"
    half = "one two three four five"
    assert own_bleu([(half, text)], mixed) == pytest.approx(100 * np.exp(1 - 8 / 5))
