"""The embedded voice: a program speaks lines of documentation and commands."""

import random
import re
from pathlib import Path

from components.sound import commands, voices
from components.sound.voices import Sentence
from components.text import docstrings

LINES, COMMANDS = 190, 160
"""Number of first lines of numpy's docstrings, and of commands."""
LENGTHS = range(30, 81)
"""Characters of a line."""
_PLAIN = re.compile(r"[A-Z][a-z]*(,? [a-z]+(-[a-z]+)?)*\.")
"""A sentence of words alone, without names, numbers and code."""
NOTICE = """\
No person spoke these recordings. Hibari did (Apache-2.0, the package hibari-tts): first lines of docstrings of
NumPy and perhaps other libraries (BSD-3-Clause), and commands of a closed grammar. A voice that learns from them
imitates a program that imitates people.
"""


def voice(folder: Path) -> None:
    """Write 350 recordings to folder/<number>.wav, each with its .txt, and a notice to SYNTHETIC.txt.

    Raises:
        PedigreeError: Hibari is not installed or fails.
    """
    voices.hibari("voice", folder, sentences(LINES, COMMANDS, "numpy"), NOTICE)


def sentences(count: int, of_grammar: int, *packages: str) -> list[Sentence]:
    """Return what is said: first sentences of docstrings that are words alone, in a random order, and commands.

    Args:
        count: Number of lines.
        of_grammar: Number of commands.
        packages: Whose docstrings are read.
    """
    found = set()
    for package in packages:
        for text in docstrings.of_package(package):
            line = " ".join(text.split("\n\n")[0].split())
            if len(line) in LENGTHS and _PLAIN.fullmatch(line):
                found.add(line)
    lines = sorted(found)
    random.Random(0).shuffle(lines)  # noqa: S311 (not for cryptography)
    return [Sentence(text) for text in (*lines[:count], *commands.sentences(of_grammar))]
