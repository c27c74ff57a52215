"""SphinxTrain's folders, as AN4 has them: etc/<name>_train.fileids and .transcription, and wav/ or feat/.

cmusphinx.github.io/wiki/tutorialam. feat/ has cepstra in place of sound. The folder of a file is its speaker.
"""

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from components.datasets import raw_files
from components.errors import PedigreeError
from components.sound.recordings.recording import SOUNDS, Found, Recording
from components.text.lines import lines

CEPSTRA = ".mfc"
HOP = 0.01
"""Seconds between frames of cepstra."""
IDS, TEXTS = ".fileids", ".transcription"
_LINE = re.compile(r"^(?:<s>)?(?P<text>.*?)(?:</s>)?\s*\((?P<id>[^()]+)\)\s*$")


def lists(files: Collection[str]) -> dict[str, str]:
    """Return the lists of files by split, such as etc/an4_train.fileids, without their suffix.

    Args:
        files: All files below the raw folder.
    """
    found = {}
    for file in files:
        path = PurePosixPath(file)
        split = raw_files.split_of(path.stem.rpartition("_")[2])
        if path.suffix == IDS and split:
            found[split] = path.with_suffix("").as_posix()
    return found


def find(raw: Path, files: Collection[str], given: dict[str, str]) -> Found:
    """Return the recordings, or their cepstra where there is a folder feat/.

    Args:
        raw: The raw folder.
        files: All files below it.
        given: `lists`.

    Raises:
        PedigreeError: the transcripts of a list are missing.
    """
    found, there = Found(), set(files)
    found.read |= {file for file in files if PurePosixPath(file).parts[0] == "etc"}
    for split, name in given.items():
        if f"{name}{TEXTS}" not in there:
            raise PedigreeError(f"{raw} has {name}{IDS} and no {name}{TEXTS}: add the transcripts")
        texts: dict[str, tuple[str, str]] = {}
        for number, line in lines(raw / f"{name}{TEXTS}"):
            at = f"{name}{TEXTS}:{number}"
            matched = _LINE.match(line or "")
            if matched is None:
                if line:
                    found.reject(at, "the line does not end with the name of a recording in brackets")
            elif (other := texts.setdefault(matched["id"], (matched["text"], at)))[1] != at:
                raise PedigreeError(
                    f"{raw}: {matched['id']} has two transcripts, {other[1]} and {at}: remove one of them"
                )
        for number, line in lines(raw / f"{name}{IDS}"):
            if not line:
                continue
            at, path = f"{name}{IDS}:{number}", PurePosixPath(line.strip())
            suffixes = (CEPSTRA, *SOUNDS)
            candidates = [f"{folder}/{path}{suffix}" for folder in ("feat", "wav") for suffix in suffixes]
            file = next((each for each in candidates if each in there), None)
            text, where = texts.get(path.name, ("", ""))
            if file is None:
                found.reject(at, "neither feat/ nor wav/ has a file of its name")
            elif not where:
                found.reject(file, f"no transcript: {name}{TEXTS} has none of its name")
            else:
                found.add(split, Recording(file, text, where, path.parent.name))
    return found
