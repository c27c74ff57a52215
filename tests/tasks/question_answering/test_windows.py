"""Windows hold every token of a context, and an answer where it stands."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.tasks.question_answering.windows import NONE, Cut, Windows
from components.text import wordpiece

TEXT = "The fox is at home in Köln, and e\u0301te\u0301 is summer; 👩\u200d💻 reads."
TOKENIZER = wordpiece.learn([TEXT, "Where is it?"], 80)


def windows(longest: int = 12, overlap: int = 3, question: int = 4) -> Windows:
    return Windows(TOKENIZER, Cut(longest, question, overlap))


def test_a_window_is_the_question_and_a_part_of_the_context_between_special_tokens():
    (window,) = windows(100).of("Where?", TEXT).windows
    cls, sep = (TOKENIZER.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    assert window.ids[0] == cls
    assert window.ids[window.first - 1] == window.ids[-1] == sep
    assert len(window.places) == len(window.ids) - window.first - 1


@given(st.text("ab c", min_size=1, max_size=60).filter(str.strip), st.integers(0, 3))
def test_each_token_of_a_context_is_in_a_window_and_neighbours_share_tokens(text, overlap):
    found = windows(10, overlap, 2).of("a", text).windows
    whole = windows(500, 0, 2).of("a", text).windows[0].places
    assert all(len(each.ids) <= 10 for each in found)
    places = [each.places for each in found]
    joined = places[0] + [place for own in places[1:] for place in own[overlap:]]
    assert joined == whole
    assert all(one[-overlap:] == two[:overlap] for one, two in pairwise(places) if overlap)


@pytest.mark.parametrize("answer", ["fox", "at home in Köln", "e\u0301te\u0301", "👩\u200d💻 reads", TEXT[:-1]])
def test_an_answer_is_found_by_its_place_and_its_positions_give_it_back(answer):
    (window,) = windows(100).of("Where?", TEXT).windows
    begin = TEXT.index(answer)
    start, end = window.span((begin, begin + len(answer)))
    first, last = window.place(start, end)
    assert TEXT[first:last] == answer


def test_an_answer_within_a_token_is_the_whole_token():
    (window,) = windows(100).of("Where?", "1066th").windows
    start, end = window.span((0, 4))
    assert window.place(start, end)[0] == 0
    assert start > NONE


def test_a_window_has_an_answer_only_as_a_whole():
    found = windows(10, 3, 2).of("a", TEXT).windows
    begin = TEXT.index("fox")
    spans = [each.span((begin, begin + len("fox is at home in Köln, and"))) for each in found]
    assert spans == [(NONE, NONE)] * len(found)
    short = [each.span((begin, begin + 3)) for each in found]
    assert short[0] > (NONE, NONE)
    assert short[-1] == (NONE, NONE)


def test_a_question_that_is_too_long_is_cut_and_this_is_known():
    asked = windows(100, question=2).of("Where is it?", TEXT)
    assert asked.cut
    assert asked.windows[0].first == 4
    assert not windows(100, question=20).of("Where is it?", TEXT).cut
