"""Runs the programs that speak embedded data, each in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from components.errors import PedigreeError
from components.sound.recordings.recording import SYNTHETIC


class Sentence(NamedTuple):
    """What Hibari says, and how."""

    text: str
    speed: float = 1.0
    """Factor of the voice's own tempo."""
    resampled: tuple[int, int] = (2, 3)
    """Ratio by which samples become fewer: 2 / 3 keeps the voice's pitch, and smaller ones make it higher."""


def speak(script: str, folder: Path, *arguments: str) -> str:
    """Let a script of this package write recordings into a folder.

    Args:
        script: Its file name.
        folder: The folder.
        arguments: Its further arguments.

    Returns:
        Why it failed, in one line; empty if it did not.
    """
    command = [sys.executable, "-P", str(Path(__file__).with_name(script)), str(folder), *arguments]
    spoken = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if not spoken.returncode:
        return ""
    return (spoken.stderr.strip().splitlines() or [f"exit status {spoken.returncode}"])[-1]


def hibari(name: str, folder: Path, sentences: Sequence[Sentence], notice: str) -> None:
    """Let Hibari speak sentences to folder/<number>.wav, each with its .txt, and write a notice to SYNTHETIC.txt.

    Args:
        name: The data set's.
        folder: An empty folder.
        sentences: What is said.
        notice: What a reader should know.

    Raises:
        PedigreeError: the voice is not installed or fails.
    """
    if find_spec("hibari") is None:
        raise PedigreeError(
            f"Hibari, the voice of the embedded {name}, is not installed: install it with `uv pip install "
            f"'pedigree[demo]'`, or put your own recordings in data/{name}/"
        )
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(each._asdict())}\n" for each in sentences)
        file.flush()
        reason = speak("hibari.py", folder, file.name)
    if reason:
        raise PedigreeError(
            f"Hibari could not speak the embedded {name} ({reason}): reinstall hibari-tts, or put your own "
            f"recordings in data/{name}/"
        )
    (folder / SYNTHETIC).write_text(notice, encoding="utf-8")
