"""LibriSpeech's folders: <part>/<reader>/<chapter>/<reader>-<chapter>.trans.txt and a flac for each of its lines.

Panayotov et al. 2015, openslr.org/12. Parts are such as train-clean-100, dev-clean and test-clean.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from components.sound.recordings.recording import SOUNDS, Found, Recording, split_in
from components.text.lines import lines

SUFFIX = ".trans.txt"


def find(raw: Path, files: Sequence[str]) -> Found:
    """Return the recordings; the reader is the first part of a recording's name.

    Args:
        raw: The raw folder.
        files: All files below it.
    """
    found = Found()
    there = {PurePosixPath(file).with_suffix("").as_posix(): file for file in files if _is_sound(file)}
    for transcripts in (file for file in files if file.endswith(SUFFIX)):
        found.read.add(transcripts)
        folder = PurePosixPath(transcripts).parent
        for number, line in lines(raw / transcripts):
            at = f"{transcripts}:{number}"
            name, _, text = (line or "").partition(" ")
            if line == "":
                continue
            file = there.get((folder / name).as_posix()) if name else None
            if file is None:
                found.reject(at, "a transcript without a sound file of its name")
            else:
                recording = Recording(file, text, at, name.split("-")[0])
                found.add(split_in(transcripts) or "train", recording)
    used = {each.file for own in found.splits.values() for each in own}
    for file in there.values():
        if file not in used:
            found.reject(file, f"no transcript: no {SUFFIX} file beside it has a line for it")
    return found


def _is_sound(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() in SOUNDS
