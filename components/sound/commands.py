"""Commands of a closed grammar, such as "set a timer for twenty minutes"; about 110 words occur in them."""

import random
from collections.abc import Callable

ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = ("ten", "eleven", "twelve", "fifteen", "eighteen")
TENS = ("twenty", "thirty", "forty", "fifty")
ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "garage", "garden", "office")
DEVICES = ("light", "lamp", "heating", "fan", "radio", "television")
NAMES = ("anna", "martin", "lucy", "peter", "doctor brown", "the office")
ACTIONS = ("call home", "water the plants", "feed the cat", "buy bread", "close the window", "take a break")
THINGS = ("milk", "bread", "apples", "coffee", "rice", "soap", "cheese", "tea")
MUSIC = ("jazz", "rock", "piano music", "the news", "the radio play", "quiet songs")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def number(drawn: random.Random) -> str:
    """Return a number from one to fifty-nine in words."""
    tens = f"{drawn.choice(TENS)} {drawn.choice(ONES)}"
    return drawn.choice((drawn.choice(ONES), drawn.choice(TEENS), drawn.choice(TENS), tens))


def hour(drawn: random.Random) -> str:
    """Return a time of day in words."""
    of_day = drawn.choice(ONES + TEENS[:3])
    return drawn.choice((f"half past {of_day}", f"quarter to {of_day}", f"{of_day} thirty", of_day))


TEMPLATES: tuple[Callable[[random.Random], str], ...] = (
    lambda r: f"set a timer for {number(r)} {r.choice(('minutes', 'seconds', 'hours'))}",
    lambda r: f"turn {r.choice(('on', 'off'))} the {r.choice(ROOMS)} {r.choice(DEVICES)}",
    lambda r: f"set the {r.choice(ROOMS)} {r.choice(DEVICES[:3])} to {number(r)} percent",
    lambda r: f"remind me to {r.choice(ACTIONS)} at {hour(r)}",
    lambda r: f"remind me to {r.choice(ACTIONS)} on {r.choice(DAYS)}",
    lambda r: f"wake me up at {hour(r)} on {r.choice(DAYS)}",
    lambda r: f"add {number(r)} {r.choice(THINGS)} to the shopping list",
    lambda r: f"play {r.choice(MUSIC)} in the {r.choice(ROOMS)}",
    lambda r: f"call {r.choice(NAMES)} at {hour(r)}",
    lambda r: f"dial {' '.join(r.choice(('zero', *ONES)) for _ in range(4))}",
    lambda r: f"what is {number(r)} {r.choice(('plus', 'minus', 'times'))} {number(r)}",
)


def sentences(count: int) -> list[str]:
    """Return a number of different commands of small letters and spaces; more of them begin with the same ones."""
    drawn, found = random.Random(0), dict[str, None]()  # noqa: S311 (not for cryptography)
    while len(found) < count:
        found[drawn.choice(TEMPLATES)(drawn)] = None
    return list(found)
