"""Texts that are nearly the same are one text wherever splits are divided."""

from typing import NamedTuple

import pytest

from components.text import repeats


class Sentence(NamedTuple):
    at: str
    source: str
    target: str


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Close the tab", "close the tab…"),
        ("Caf\u00e9", "CAFE\u0301"),
        ("a  b", "a b."),
        ("don't", "Don't"),
        ("Is it C++?", "is it c++"),
        ("50 % of C #", "50% of C#."),
        ("\u22125 degrees", "-5 degrees"),
        ("well-known, `a` \u2013 b", "well known a b"),
        ("Apollo-11", "Apollo 11"),
    ],
)
def test_texts_that_differ_only_in_case_marks_and_spaces_have_the_same_key(one, other):
    assert repeats.key(one) == repeats.key(other)


@pytest.mark.parametrize(("one", "other"), [("दिन", "दीन"), ("कि", "की"), ("חַם", "חֵם")])
def test_vowels_that_are_marks_on_letters_make_other_texts(one, other):
    assert repeats.key(one) != repeats.key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C#", "C++"),
        ("C", "C++"),
        ("2 + 3", "2 * 3"),
        ("2*3", "2/3"),
        ("2-3", "2+3"),
        ("5 degrees", "-5 degrees"),
        ("a != b", "a = b"),
        ("$5", "5 €"),
        ("5%", "5"),
        ("x^2", "x2"),
        ("Good 😀", "Good 😢"),
    ],
)
def test_symbols_make_other_texts(one, other):
    assert repeats.key(one) != repeats.key(other)


def test_texts_of_marks_alone_have_keys_of_their_own():
    assert repeats.key("...") != repeats.key("!?")
    assert repeats.key("one") != repeats.key("two")


def test_a_test_text_is_not_trained_on_and_the_rejection_says_where_it_is():
    train = [Sentence("train.en:1", "One cat.", "kat uno"), Sentence("train.en:2", "two", "du")]
    val = [Sentence("val.en:1", "two!", "du!"), Sentence("val.en:2", "one cat", "kat uno")]
    test = [Sentence("test.en:1", "one CAT", "uno kat"), Sentence("test.en:2", "one cat", "kat uno")]
    splits = {"train": train, "val": val, "test": test}
    left, rejected = repeats.without(splits, lambda pair: repeats.key(pair.source))
    assert left == {"test": test, "val": val[:1], "train": []}
    assert [(each.file, each.reason) for each in rejected] == [
        ("val.en:2", "duplicate of the test text test.en:1"),
        ("train.en:1", "duplicate of the test text test.en:1"),
        ("train.en:2", "duplicate of the val text val.en:1"),
    ]
