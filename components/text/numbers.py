"""English words for the numbers that are written in digits."""

import re

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
LARGEST = 10**12
"""From here on, and where a number begins with zero, its digits are read one by one."""
_NUMBER = re.compile(r"\d+")


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
    """Return a text with words in place of its numbers, such as "press one" for "press 1"."""
    return _NUMBER.sub(lambda found: f" {_read(found[0])} ", text)


def _read(digits: str) -> str:
    if (digits.startswith("0") and len(digits) > 1) or len(digits) > len(str(LARGEST - 1)):
        return " ".join(ONES[int(digit)] for digit in digits)
    return in_words(int(digits))
