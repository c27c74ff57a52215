"""Runs a program that speaks embedded data, in a process of its own."""

import subprocess
import sys
from pathlib import Path


def speak(script: str, folder: Path) -> str:
    """Let a script of this package write recordings into a folder.

    Args:
        script: Its file name.
        folder: The folder.

    Returns:
        Why it failed, in one line; empty if it did not.
    """
    command = [sys.executable, "-P", str(Path(__file__).with_name(script)), str(folder)]
    spoken = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if not spoken.returncode:
        return ""
    return (spoken.stderr.strip().splitlines() or [f"exit status {spoken.returncode}"])[-1]
