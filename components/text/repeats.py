"""Texts that are nearly the same: they belong into one split, so that no test text is learnt by heart."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from components.contracts import RejectedFile
from components.datasets import raw_files


class Sample(Protocol):
    """A sample that was read."""

    @property
    def at(self) -> str:
        """Where it is, such as train.csv:12."""


S = TypeVar("S", bound=Sample)


def key(text: str) -> str:
    """Return what is equal for texts that differ only in case, punctuation marks and spaces; never empty.

    Texts of one key, such as "Close the tab" and "Close the tab…", hardly differ in what they mean. Marks on
    letters, such as the vowels of Hindi, belong to them.
    """
    folded = raw_files.same(text).casefold()
    return " ".join("".join(letter if _is_in_word(letter) else " " for letter in folded).split()) or folded


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
