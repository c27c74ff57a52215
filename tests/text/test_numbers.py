"""Numbers are spelt as they are said in English."""

import pytest

from components.datasets.ingest import Unusable
from components.text import numbers


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("press 1", "press one"),
        ("13 of 47", "thirteen of forty seven"),
        ("in 1200 days", "in one thousand two hundred days"),
        ("1000000", "one million"),
        ("call 007", "call zero zero seven"),
        ("1,000 times.", "one thousand times."),
        ("(press 2!)", "(press two !)"),
        ("12,345,678", "twelve million three hundred forty five thousand six hundred seventy eight"),
        ("no digits", "no digits"),
    ],
)
def test_digits_become_words(text, spelt):
    assert " ".join(numbers.spelt(text).split()) == spelt


@pytest.mark.parametrize("word", ["3.5", "20,5", "1st", "1990s", "$5", "-5", "b2b", "x²", "½", "\u0663", "1,00"])
def test_what_is_no_whole_number_is_not_spelt(word):
    assert numbers.has_digits(word)
    with pytest.raises(Unusable, match="is no whole number, which can be spelt: write words"):
        numbers.spelt(f"say {word} now")


def test_a_very_long_number_is_read_digit_by_digit():
    assert numbers.spelt("9" * 13).split() == ["nine"] * 13
