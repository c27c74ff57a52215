"""Transcripts as they are learnt and counted: one line of words with one space between them."""

import re
import unicodedata

from components.datasets import raw_files
from components.datasets.ingest import Unusable
from components.sound.params import TranscriptParams
from components.text import numbers
from components.text.lines import expect_usable

LONGEST = 10_000
"""Most characters of a transcript."""
_QUOTED = re.compile("\u2018((?:[^\u2018\u2019]|\u2019(?=\\w))*)\u2019(?!\\w)")
"""Words in single quotation marks, the second of which is also the apostrophe."""
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'"})


def normalised(text: str, params: TranscriptParams) -> str:
    """Return a transcript in Unicode's form C, with one space between words.

    Raises:
        Unusable: it is empty, lost characters, is too long, or has digits that may not or cannot be spelt.
    """
    usable = _QUOTED.sub(r" \1 ", raw_files.same(expect_usable(text))).translate(_APOSTROPHES)
    if len(usable) > LONGEST:
        raise Unusable(f"the text has over {LONGEST:,} characters")
    if numbers.has_digits(usable):
        if params.numbers == "reject":
            raise Unusable(
                "the text has digits, which are not what is said: write words, or set prepare.text.numbers to spell"
            )
        usable = numbers.spelt(usable)
    if params.lowercase:
        usable = usable.lower()
    if params.punctuation == "remove":
        usable = "".join(each if each.isalnum() or each == "'" or _combining(each) else " " for each in usable)
    words = usable.split()
    if not words:
        raise Unusable("the text has no words")
    return " ".join(words)


def _combining(letter: str) -> bool:
    return unicodedata.category(letter).startswith("M")
