"""python -P components/sound/hibari.py FOLDER: commands of a closed grammar, spoken by one synthetic voice, as wav.

Hibari (Apache-2.0, the package hibari-tts) is an English voice that a program speaks, with its network in the
package. Each sentence has its own seed, speed and pitch. This file imports nothing of the project, so that it
starts quickly.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile  # type: ignore[import-untyped]
from hibari import Hibari  # type: ignore[import-untyped]
from scipy.signal import resample_poly

SENTENCES = 1000
RATE = 16_000
"""Samples per second of the files; the voice has 24,000."""
SPEEDS = (0.9, 1.05, 1.2)
"""Factors of the voice's own tempo."""
RESAMPLED = ((2, 3), (40, 57), (40, 63))
"""Ratios by which samples become fewer: 2 / 3 keeps the voice's pitch, the others are 5 % lower and higher."""
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


def sentences() -> list[str]:
    """Return `SENTENCES` different commands of small letters and spaces; about 110 words occur in them."""
    drawn, found = random.Random(0), dict[str, None]()  # noqa: S311 (not for cryptography)
    while len(found) < SENTENCES:
        found[drawn.choice(TEMPLATES)(drawn)] = None
    return list(found)


def main(folder: Path) -> None:
    """Write folder/<number>.wav, 16 bits and 16,000 Hz, and beside each its text."""
    voice = Hibari()
    for index, text in enumerate(sentences()):
        wave = voice(text, SPEEDS[index % len(SPEEDS)], seed=index)
        sound = resample_poly(wave, *RESAMPLED[index // len(SPEEDS) % len(RESAMPLED)])
        samples = np.clip(np.rint(sound * 32767), -32768, 32767).astype(np.int16)
        soundfile.write(folder / f"{index:04}.wav", samples, RATE, subtype="PCM_16")
        (folder / f"{index:04}.txt").write_text(f"{text}\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
