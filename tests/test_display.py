"""Text that others supply cannot steer a terminal or a page, and stays the text that it is."""

import errno
import html
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.adapters.mlflow_store import for_pages
from components.display import LONGEST_VALUE, brief, markdown, printable, printable_name
from components.errors import PedigreeError, last_sentence, report
from components.runtime import surroundings

ORDINARY = [
    "digits version 3 has a café, an Ä and a ß",
    "猫 和 犬\u3000ねこ",
    "می\u200cشود",  # Persian, with a joiner that letters need
    "قطة",
    "क्\u200dष",
    "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL} ❤\ufe0f",
    "葛\U000e0100",  # a form of a character that people's names need
    "two\nlines\tand a tab",
    "C:\\data [0, 1] <b>",
]
FORGING = {
    "\x1b[2J": "\\x1b[2J",
    "\x9b31m": "\\x9b31m",
    "a\rb": "a\\rb",
    "a\x08b\x07\x00\x7f": "a\\x08b\\x07\\x00\\x7f",
    "a\u202egnp.exe": "a\\u202egnp.exe",
    "\u2066a\u2069\u200e\u200f\u061c": "\\u2066a\\u2069\\u200e\\u200f\\u061c",
    "a\u2028b\u2029c\x85": "a\\u2028b\\u2029c\\x85",
    "cat\u200b\ufeff\u2060\xad": "cat\\u200b\\ufeff\\u2060\\xad",
    "caf\udce9.png": "caf\\udce9.png",
}


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_of_any_language_is_printed_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(("text", "shown"), FORGING.items())
def test_what_could_steer_a_terminal_or_make_two_names_look_the_same_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_a_name_is_printed_on_one_line():
    assert printable_name("a.png\nerror: \tb") == "a.png\\nerror: \\tb"


def test_no_error_brings_control_characters_to_a_terminal():
    assert (
        str(PedigreeError("data/\x1b[2J.png: remove it\n  and go on"))
        == "data/\\x1b[2J.png: remove it\n  and go on"
    )
    for code in (errno.ENOSPC, errno.EIO):
        sentence = last_sentence(OSError(code, "what the system says", "data/\x1b[2J.png"))
        assert sentence.startswith("data/\\x1b[2J.png: ")


@pytest.mark.parametrize("debug", [False, True])
def test_no_traceback_brings_control_characters_to_a_terminal(debug):
    assert report(ValueError("a\x1b[2J"), debug) == "ValueError: a\\x1b[2J"


def test_log_lines_of_ours_have_their_control_characters_escaped_and_others_their_arguments(caplog):
    for _ in range(2):
        surroundings.settle()
    logging.getLogger("pedigree.prepare").warning("%d files, such as %s", 2, "\x1b[2J.png")
    logging.getLogger("uvicorn.access").warning("%s", "a path")
    ours, theirs = caplog.records
    assert ours.getMessage() == "2 files, such as \\x1b[2J.png"
    assert theirs.args == ("a path",)


LITERAL = [
    "challenger: accuracy 0.85 is below 0.9; not surely better than version 3 (p = 0.02)",
    "macro_f1 is worse by 1",
    "p < 0.0001, 5 > 3 & more",
    "+0.0123 against version 3",
]
ESCAPED = {
    "[click](javascript:alert(1))": "\\[click](javascript:alert(1))",
    "![x](http://127.0.0.1:1/beacon.png)": "!\\[x](http\\://127.0.0.1:1/beacon.png)",
    "<img src=x onerror=alert(1)>": "\\<img src=x onerror=alert(1)>",
    "<!-- </b> <?x": "\\<!-- \\</b> \\<?x",
    "&lt;b&gt; &#60;": "\\&lt;b\\&gt; \\&#60;",
    "a|b\nc": "a\\|b c",
    "`code` *a* __b__ _c_ ~~d~~": "\\`code\\` \\*a\\* \\_\\_b\\_\\_ \\_c\\_ \\~\\~d\\~\\~",
    "www.evil.example me@evil.example": "www\\.evil.example me\\@evil.example",
    "\\[x](y)": "\\\\\\[x](y)",
    "# head": "\\# head",
    "> quoted": "\\> quoted",
    "- item": "\\- item",
    "\x1b]8;;http://evil\x07": "\\\\x1b]8;;http\\://evil\\\\x07",
}


@pytest.mark.parametrize("text", LITERAL)
def test_a_plain_sentence_is_the_same_in_markdown(text):
    assert markdown(text) == text


@pytest.mark.parametrize(("text", "escaped"), ESCAPED.items())
def test_what_markdown_would_take_for_more_than_text_is_escaped(text, escaped):
    assert markdown(text) == escaped


@given(st.text(st.characters(codec="utf-8")))
def test_text_in_markdown_says_the_same_in_mlflows_pages_and_by_the_standard(text):
    text = " ".join(printable(text).split())
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown(text)) == text
    assert html.unescape(for_pages(markdown(text))) == text


def test_a_value_in_a_message_is_short_whatever_it_is():
    bomb: list = [0]
    for _ in range(30):
        bomb = [bomb] * 10
    for value in (
        bomb,
        {"a": bomb},
        "x" * 10**6,
        {"k" * 1000: "v" * 1000},
        2**100_000,
        [2**100_000],
        {*range(10**5)},
    ):
        assert len(brief(value)) <= LONGEST_VALUE
    for value in ("0.1", 0.1, None, [1, 2], {"a": 1}, "it's"):
        assert brief(value) == repr(value)
