"""Edits are the fewest, as jiwer counts them."""

import random

import pytest

from components.text.measures import edits

PAIRS = [
    ("", "", (0, 0, 0)),
    ("a b c", "a b c", (0, 0, 0)),
    ("a b c", "a x c", (1, 0, 0)),
    ("a b c", "a c", (0, 1, 0)),
    ("a c", "a b c", (0, 0, 1)),
    ("a b", "", (0, 2, 0)),
    ("", "a b", (0, 0, 2)),
]


@pytest.mark.parametrize(("reference", "hypothesis", "expected"), PAIRS)
def test_substitutions_deletions_and_insertions_are_counted(reference, hypothesis, expected):
    assert edits.counts(reference.split(), hypothesis.split()) == expected


def texts(seed: int) -> tuple[str, str]:
    drawn = random.Random(seed)
    return tuple(" ".join(drawn.choices(("a", "b", "c", "dd"), k=drawn.randint(1, 9))) for _ in range(2))


@pytest.mark.parametrize("seed", range(30))
def test_the_number_of_edits_is_that_of_jiwer(seed):
    jiwer = pytest.importorskip("jiwer", reason="jiwer is not installed: the extra [dev] has it")
    reference, hypothesis = texts(seed)
    theirs = jiwer.process_words(reference, hypothesis)
    own = edits.counts(reference.split(), hypothesis.split())
    assert sum(own) == theirs.substitutions + theirs.deletions + theirs.insertions
    assert own.insertions - own.deletions == theirs.insertions - theirs.deletions
    characters = sum(edits.counts(reference, hypothesis)) / len(reference)
    assert characters == pytest.approx(jiwer.cer(reference, hypothesis))


@pytest.mark.parametrize("seed", range(10))
def test_an_alignment_has_both_sequences_in_their_order(seed):
    reference, hypothesis = (text.split() for text in texts(seed))
    pairs = edits.aligned(reference, hypothesis)
    assert [one for one, _ in pairs if one is not None] == reference
    assert [other for _, other in pairs if other is not None] == hypothesis
    assert sum(one != other for one, other in pairs) == sum(edits.counts(reference, hypothesis))
