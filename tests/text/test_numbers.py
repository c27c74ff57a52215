"""Numbers are spelt as they are said in English."""

import pytest

from components.text import numbers


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("press 1", "press one"),
        ("13 of 47", "thirteen of forty seven"),
        ("in 1200 days", "in one thousand two hundred days"),
        ("1000000", "one million"),
        ("call 007", "call zero zero seven"),
        ("20,5", "twenty , five"),
        ("no digits", "no digits"),
    ],
)
def test_digits_become_words(text, spelt):
    assert " ".join(numbers.spelt(text).split()) == spelt


def test_a_very_long_number_is_read_digit_by_digit():
    assert numbers.spelt("9" * 13).split() == ["nine"] * 13
