"""Text that data, file names, parameters or people supply, made safe to show in terminals, messages and pages."""

import re
import reprlib
from collections.abc import Sequence
from typing import Any

_INVISIBLE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters; a terminal obeys those that begin with ESC or CSI
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls, which reorder what surrounds them
    r"\u2028\u2029"  # separators of lines and paragraphs
    r"\xad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # of no width: two names would look the same
    r"\ud800-\udfff"  # halves of a character: bytes of a file name that are not UTF-8
)
"""Characters to escape. Those that join letters or emoji (U+200C, U+200D, U+FE0F) belong to ordinary text."""
_IN_TEXT, _IN_NAME = re.compile(f"[{_INVISIBLE}]"), re.compile(f"[\t\n{_INVISIBLE}]")


def printable(text: str) -> str:
    """Return a text with invisible characters other than line ends and tabs escaped, as in `\\x1b`.

    They would let a file name clear a terminal, or show as another one (Unicode Technical Report 36).
    """
    return _IN_TEXT.sub(_escape, text)


def printable_name(name: str) -> str:
    """Return a name on one line, as `printable` does with line ends and tabs escaped, too."""
    return _IN_NAME.sub(_escape, name)


def _escape(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()


_MARKUP = re.compile(
    r"[\\`*\[|~@]"  # escapes, code, emphasis, links and images, cells, strike-through, addresses and mentions
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis, which does not begin or end inside a word
    r"|<(?=[A-Za-z/!?])|&(?=[#\w])"  # HTML: tags and references to characters
    r"|:(?=//)|(?<=www)\."  # addresses, of which pages make links
    r"|^[#>]|^[-+](?!\d)",  # headings, quotations, lists and rules
    re.IGNORECASE,
)


def markdown(text: str) -> str:
    """Return Markdown that shows a text as it is, on one line: no links, images, HTML, code or emphasis.

    The characters that begin such a construct are escaped by backslashes
    (https://spec.commonmark.org/0.31.2/#backslash-escapes), so that ordinary sentences stay readable as text.
    """
    return _MARKUP.sub(r"\\\g<0>", " ".join(printable(text).split()))


LONGEST_VALUE = 100
"""Most characters of a value in a message."""
_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 2, LONGEST_VALUE, LONGEST_VALUE
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = _short.maxdict = _short.maxarray = 4


def brief(value: Any) -> str:
    """Return the `repr` of a value for a message, of at most `LONGEST_VALUE` characters.

    Its cost is bounded, too: a few lines of YAML with anchors can describe a list of a billion items.
    """
    try:
        text = _short.repr(value)
    except ValueError:  # Python writes out no whole number of more than 4,300 digits
        return f"a value of type {type(value).__name__} that is too long to show"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


MOST_PROBLEMS = 20
"""Most problems that a message lists."""


def first(problems: Sequence[str]) -> list[str]:
    """Return at most `MOST_PROBLEMS` problems for a message, and the number of further ones as a last entry."""
    more = len(problems) - MOST_PROBLEMS
    return [*problems[:MOST_PROBLEMS], *([f"and {more:,} more"] if more > 0 else [])]
