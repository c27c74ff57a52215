"""Texts are grouped by their number of words."""

import pytest

from components.text import length_bands


@pytest.mark.parametrize(
    ("words", "group"),
    [(0, "1-4 words"), (4, "1-4 words"), (5, "5-8 words"), (32, "17-32 words"), (33, "33 or more words")],
)
def test_a_text_belongs_to_the_group_of_its_length(words, group):
    assert length_bands.of_text("x " * words) == group


def test_the_groups_are_named_in_the_order_of_their_lengths():
    assert length_bands.NAMES == ("1-4 words", "5-8 words", "9-16 words", "17-32 words", "33 or more words")
