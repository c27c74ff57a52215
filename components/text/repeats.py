"""Texts that are nearly the same: they belong into one split, so that no test text is learnt by heart."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol, TypeVar

from components.contracts import RejectedFile
from components.datasets import raw_files


class Sample(Protocol):
    """A sample that was read."""

    @property
    def at(self) -> str:
        """Where it is, such as train.csv:12."""


S = TypeVar("S", bound=Sample)


_SYMBOLS = frozenset("#%‰&*/@^")
"""Punctuation marks of Unicode, and a modifier, that tell texts apart as its symbols do."""
_MINUS = re.compile(r"(?<!\w)-(?=\d)|(?<=\d)-(?=\d)|(?<=\d )-(?= \d)")
"""A hyphen that is a sign or stands between numbers."""


def key(text: str) -> str:
    """Return what is equal for texts that differ only in case, punctuation marks and spaces; never empty.

    Texts of one key, such as "Close the tab" and "Close the tab…", hardly differ in what they mean. Symbols tell
    texts apart, as "C#" and "C++", "2 + 3" and "2 - 3", or "Good 😀" and "Good 😢".
    """
    folded = _folded(text)
    symbols = _MINUS.sub("\N{MINUS SIGN}", folded).replace("!=", "\N{NOT EQUAL TO}")
    return " ".join("".join(map(_apart, symbols)).split()) or folded


def words(text: str) -> str:
    """Return the words of a text without case, symbols and punctuation marks, with a space between them.

    Marks on letters, such as the vowels of Hindi, belong to them. If it has no words, the text is returned.
    """
    folded = _folded(text)
    return " ".join("".join(letter if _is_in_word(letter) else " " for letter in folded).split()) or folded


def _folded(text: str) -> str:
    return raw_files.same(text).casefold()


@lru_cache(maxsize=2**16)
def _apart(letter: str) -> str:
    """Return a letter of a word as it is, a symbol between spaces, and a space for another character."""
    if _is_in_word(letter):
        return letter
    is_symbol = letter in _SYMBOLS or unicodedata.category(letter) in ("Sc", "Sm", "So")
    return f" {letter} " if is_symbol else " "


def _is_in_word(letter: str) -> bool:
    return letter.isalnum() or unicodedata.category(letter)[0] == "M"


def without(
    splits: Mapping[str, Sequence[S]], of: Callable[[S], str]
) -> tuple[dict[str, list[S]], list[RejectedFile]]:
    """Reject samples of train that are in test or val, too, and samples of val that are in test.

    Args:
        splits: The samples of train, val and test.
        of: Returns the `key` of a sample.
    """
    first: dict[str, tuple[str, str]] = {}
    left: dict[str, list[S]] = {}
    rejected = []
    for split in ("test", "val", "train"):
        left[split] = []
        for sample in splits[split]:
            earlier, at = first.setdefault(of(sample), (split, sample.at))
            if earlier == split:
                left[split].append(sample)
            else:
                rejected.append(RejectedFile(file=sample.at, reason=f"duplicate of the {earlier} text {at}"))
    return left, rejected
