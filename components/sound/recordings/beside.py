"""A text file beside each sound file: x.wav and x.txt, in any folders; those of train, val and test are splits."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from components.datasets import ingest
from components.datasets.ingest import Unusable
from components.errors import PedigreeError
from components.sound.recordings.recording import SOUNDS, Found, Recording, split_in
from components.text.lines import LONGEST, decoded, expect_text

SUFFIX = ".txt"


def find(raw: Path, files: Sequence[str]) -> Found:
    """Return the recordings; a sound or a text without the other is rejected.

    Args:
        raw: The raw folder.
        files: All files below it.

    Raises:
        PedigreeError: two sound files are beside one text, or two texts have one name but for the case of .txt.
    """
    found = Found()
    texts: dict[str, str] = {}
    for file in files:
        if file.lower().endswith(SUFFIX) and (other := texts.setdefault(_stem(file), file)) != file:
            raise PedigreeError(f"{raw}: {other} and {file} are two transcripts of one name: remove one of them")
    sounds: dict[str, str] = {}
    for file in files:
        if PurePosixPath(file).suffix.lower() in SOUNDS and (other := sounds.setdefault(_stem(file), file)) != file:
            raise PedigreeError(f"{raw}: {other} and {file} have one transcript: remove one of them")
    for stem, file in sounds.items():
        if stem not in texts:
            found.reject(file, f"no transcript: there is no {SUFFIX} file of its name beside it")
            continue
        found.read.add(texts[stem])
        try:
            text = _text(raw, texts[stem])
        except Unusable as reason:
            found.reject(file, f"its transcript: {reason}")
        else:
            found.add(split_in(file) or "train", Recording(file, text, texts[stem]))
    for stem, file in texts.items():
        if stem not in sounds and "/" in file:
            found.read.add(file)
            found.reject(file, "a transcript without a sound file of its name beside it")
    return found


def _stem(file: str) -> str:
    return PurePosixPath(file).with_suffix("").as_posix()


def _text(raw: Path, file: str) -> str:
    data = ingest.contents(raw, file, "a text")
    if len(data) > LONGEST:
        raise Unusable(f"over {LONGEST:,} bytes")
    if data.strip():
        expect_text(data)
    return decoded(data)
