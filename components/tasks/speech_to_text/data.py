"""The embedded recordings: commands that a program speaks."""

from pathlib import Path

from components.sound import commands as grammar
from components.sound import voices
from components.sound.voices import Sentence

SENTENCES = 1000
SPEEDS = (0.9, 1.05, 1.2)
"""Factors of the voice's own tempo."""
RESAMPLED = ((2, 3), (40, 57), (40, 63))
"""Ratios by which samples become fewer: 2 / 3 keeps the voice's pitch, the others are 5 % lower and higher."""
NOTICE = """\
No person spoke these recordings. Hibari did (Apache-2.0, the package hibari-tts): commands of a closed grammar
in one voice, at three speeds and three pitches. They show that everything works; how well a network understands
people they do not show.
"""


def commands(folder: Path) -> None:
    """Write 1,000 recordings to folder/<number>.wav, each with its .txt, and a notice to SYNTHETIC.txt.

    Raises:
        PedigreeError: the voice is not installed or fails.
    """
    voices.hibari("commands", folder, sentences(), NOTICE)


def sentences() -> list[Sentence]:
    """Return what is said: each speed in turn, and each pitch for three sentences."""
    return [
        Sentence(text, SPEEDS[index % len(SPEEDS)], RESAMPLED[index // len(SPEEDS) % len(RESAMPLED)])
        for index, text in enumerate(grammar.sentences(SENTENCES))
    ]
