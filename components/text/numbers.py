"""English words for the numbers that are written in digits."""

import re
import unicodedata

from components.datasets.ingest import Unusable
from components.display import brief

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
LARGEST = 10**12
"""From here on, and where a number begins with zero, its digits are read one by one."""
_NUMBER = re.compile(r"[0-9]+|[0-9]{1,3}(,[0-9]{3})+")
"""What is said as one number: digits alone, or in groups of three."""
_AROUND = ".,;:!?()[]\"'\u2026"
"""Marks that may stand beside a number."""


def in_words(number: int) -> str:
    """Return a number from 0 to `LARGEST` - 1 in English words, without hyphens and "and"."""
    for scale, name in SCALES:
        if number >= scale:
            rest = f" {in_words(number % scale)}" if number % scale else ""
            return f"{in_words(number // scale)} {name}{rest}"
    if number < len(ONES):
        return ONES[number]
    tens = TENS[number // 10]
    return f"{tens} {ONES[number % 10]}" if number % 10 else tens


def spelt(text: str) -> str:
    """Return a text with words in place of its whole numbers, such as "press one" for "press 1" or "press 1.".

    Raises:
        Unusable: it has digits that are said in another way, such as 3.5, 1st, $5 or a fraction.
    """
    return " ".join(_word(word) for word in text.split())


def has_digits(text: str) -> bool:
    """Return whether a text has digits of any script, fractions or other signs for numbers."""
    return any(unicodedata.category(letter)[0] == "N" for letter in text)


def _word(word: str) -> str:
    if not has_digits(word):
        return word
    inner = word.strip(_AROUND)
    if not _NUMBER.fullmatch(inner):
        raise Unusable(f"{brief(word)} in the text is no whole number, which can be spelt: write words")
    before, after = word.split(inner, 1)
    return f"{before} {_read(inner.replace(',', ''))} {after}".strip()


def _read(digits: str) -> str:
    if (digits.startswith("0") and len(digits) > 1) or len(digits) > len(str(LARGEST - 1)):
        return " ".join(ONES[int(digit)] for digit in digits)
    return in_words(int(digits))
