"""LJSpeech's metadata.csv: id|text or id|text|normalised text on each line, and the recordings as wavs/<id>.wav.

Ito and Johnson 2017, keithito.com/LJ-Speech-Dataset. A quotation mark is a character like any other.
"""

from collections.abc import Collection
from pathlib import Path

from components.errors import PedigreeError
from components.sound.recordings.recording import SOUNDS, Found, Recording
from components.text.lines import lines

NAME, FOLDER = "metadata.csv", "wavs"


def find(raw: Path, files: Collection[str]) -> Found:
    """Return the recordings with the last text of their lines, in which numbers are words.

    Args:
        raw: The raw folder.
        files: All files below it.

    Raises:
        PedigreeError: no "|" is between the parts of a line.
    """
    found, there = Found(read={NAME}), set(files)
    for number, line in lines(raw / NAME):
        at = f"{NAME}:{number}"
        if not line:
            continue
        name, *texts = line.split("|")
        if not texts:
            raise PedigreeError(
                f"{raw / NAME}:{number}: there is no | between the parts of this line: write <id>|<text>"
            )
        candidates = [f"{FOLDER}/{name}", *(f"{FOLDER}/{name}{suffix}" for suffix in SOUNDS)]
        file = next((each for each in candidates if each in there), None)
        if file is None:
            found.reject(at, f"{FOLDER}/ has no recording of its id")
        else:
            found.add("train", Recording(file, texts[-1] or texts[0], at))
    used = {each.file for own in found.splits.values() for each in own}
    for file in files:
        if file.startswith(f"{FOLDER}/") and file not in used:
            found.reject(file, f"no transcript: {NAME} has no line for it")
    return found
