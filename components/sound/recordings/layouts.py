"""Which layout a raw folder of recordings has, and its recordings."""

from pathlib import Path

from components.datasets import raw_files
from components.errors import PedigreeError
from components.sound.recordings import beside, common_voice, librispeech, ljspeech, nemo, sphinx
from components.sound.recordings.recording import SYNTHETIC, Found, expect_one_transcript, walk


def survey(raw: Path) -> Found:
    """Return the recordings with their transcripts without opening a sound file; each split is sorted by file.

    Raises:
        PedigreeError: there are none to train on, one has two transcripts, or a list cannot be read.
    """
    own = {SYNTHETIC, raw_files.COMPOSED, *raw_files.about(raw)}
    files = [file for file in walk(raw) if file not in own]
    found = _found(raw, files)
    expect_one_transcript(raw, found.splits)
    if not found.splits.get("train"):
        raise PedigreeError(
            f"{raw} has no recordings with transcripts to train on: put a .txt file beside each sound file, "
            "LibriSpeech's folders, Common Voice's tables, LJSpeech's metadata.csv or NeMo's manifests there"
            + (f" ({found.rejected[0].file}: {found.rejected[0].reason})" if found.rejected else "")
        )
    used = {each.file for each_split in found.splits.values() for each in each_split} | found.read
    named = used | {each.file for each in found.rejected}
    for file in files:
        if file not in named:
            found.reject(file, "not part of the recordings and their transcripts")
    found.splits = {split: sorted(each) for split, each in found.splits.items()}
    return found


def _found(raw: Path, files: list[str]) -> Found:
    if any(file.endswith(librispeech.SUFFIX) for file in files):
        return librispeech.find(raw, files)
    if manifests := nemo.manifests(raw, files):
        return nemo.find(raw, files, manifests)
    if common_voice.is_one(raw):
        return common_voice.find(raw, files)
    if ljspeech.NAME in files:
        return ljspeech.find(raw, files)
    if lists := sphinx.lists(files):
        return sphinx.find(raw, files, lists)
    return beside.find(raw, files)
