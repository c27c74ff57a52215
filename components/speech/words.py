"""The raw folder: raw/<word>/<file>, with validation_list.txt and testing_list.txt where there are any."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components import intake
from components.errors import PedigreeError
from components.speech.params import SpeechPrepareParams

LISTS = {"test": "testing_list.txt", "val": "validation_list.txt"}
"""Names of Speech Commands (Warden 2018, arXiv:1804.03209, section 7.1), in the order in which parts are taken."""
SYNTHETIC = "SYNTHETIC.txt"
"""A file of this name in the raw folder says that no person spoke the clips."""
NOISE = "_background_noise_"
"""The folder of long recordings that Speech Commands has beside its words: not one of them."""
KNOWN = (*LISTS.values(), SYNTHETIC, "README.md", "LICENSE")


@dataclass(frozen=True)
class Survey:
    """What there is, sorted into parts and not yet opened."""

    words: list[str]
    """Sorted; a label is a place in this list."""
    parts: dict[str, list[str]]
    """Split to files, as paths below the raw folder, sorted."""
    strays: list[str]
    """Files beside the words' folders."""
    speaker: str
    """The pattern that tells speakers apart; empty where the files' names tell of none, or of one alone."""

    @property
    def total(self) -> int:
        """Files, strays too."""
        return sum(map(len, self.parts.values())) + len(self.strays)


def survey(raw: Path, options: SpeechPrepareParams) -> Survey:
    """Look at the folders and lists, and at no sound.

    What a list names is where it says. Of the rest, where test or val has no list, whole speakers are taken in the
    order of a hash, first for test, then for val, until there are enough clips.

    Raises:
        PedigreeError: there is nothing to learn from, a list is wrong, or the speakers cannot be divided.
    """
    words = sorted(name for name, is_folder in _visible(raw) if is_folder and name != NOISE)
    files = [f"{word}/{name}" for word in words for name in sorted(name for name, _ in _visible(raw / word))]
    _check(raw, words, files)
    speaker = options.speaker if _told(files, options.speaker) > 1 else ""
    parts = _listed(raw, words, files)
    given = set().union(*parts.values())
    rest = [file for file in files if file not in given]
    for split, share in (("test", options.test_share), ("val", options.val_share)):
        if split not in parts:
            parts[split], rest = _take(raw, split, rest, share * len(rest), speaker, options.seed)
    parts["train"] = rest
    for split, chosen in parts.items():
        _check_words(raw, split, words, chosen)
    strays = sorted(name for name, is_folder in _visible(raw) if not is_folder and name not in KNOWN)
    return Survey(words, parts, strays, speaker)


def speakers_of(files: Iterable[str], pattern: str) -> list[str]:
    """Return who speaks in each file, as its name tells; a file whose name does not is a speaker of its own.

    Args:
        files: `<word>/<name>`; a name that begins with the word and "_" or "-" tells the speaker after it.
        pattern: Has a group `speaker`; where it is empty no name tells.
    """
    return [_speaker(file, pattern) or file for file in files]


def _speaker(file: str, pattern: str) -> str | None:
    path = PurePosixPath(file)
    stem = re.sub(f"^{re.escape(path.parent.name)}[_-]", "", path.stem)
    found = re.search(pattern, stem) if pattern else None
    speaker = found and found["speaker"]
    return None if speaker and speaker.casefold() == path.parent.name.casefold() else speaker


def _told(files: Sequence[str], pattern: str) -> int:
    """Return of how many speakers the names tell."""
    return len({_speaker(file, pattern) for file in files} - {None, ""})


def _visible(folder: Path) -> Iterable[tuple[str, bool]]:
    return intake.visible(folder) if folder.is_dir() else ()


def _check(raw: Path, words: Sequence[str], files: Sequence[str]) -> None:
    if not files:
        raise PedigreeError(
            f"{raw}: there are no sound files: run `pedigree data`, or put wav or flac files in {raw}/<word>/"
        )
    filled = {file.split("/")[0] for file in files}
    if empty := [f"{raw / word}" for word in words if word not in filled]:
        raise PedigreeError(f"{intake.listed(empty)}: no files there: put some in, or remove the folder")
    if len(words) < 2:
        raise PedigreeError(f"{raw} has one word, {words[0]}: put a folder with clips of another beside it")


def _listed(raw: Path, words: Sequence[str], files: Sequence[str]) -> dict[str, list[str]]:
    """Return the files that the lists name, by split; lines of words that have no folder here are passed over."""
    there, folders, places = set(files), set(words), dict[str, str]()
    parts: dict[str, list[str]] = {}
    for split, name in LISTS.items():
        if not (raw / name).is_file():
            continue
        parts[split] = []
        for number, line in enumerate(_lines(raw / name), start=1):
            file, place = line.strip().removeprefix("./"), f"{raw / name}:{number}"
            if not file or file.split("/")[0] not in folders:
                continue
            if file not in there:
                raise PedigreeError(f"{place}: there is no file {file}: put it there, or remove the line")
            if file in places:
                raise PedigreeError(f"{place}: {file} is in {places[file]} already: remove one of the lines")
            places[file] = place
            parts[split].append(file)
        parts[split].sort()
    return parts


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise PedigreeError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8") from None


def _take(
    raw: Path, split: str, files: Sequence[str], enough: float, pattern: str, seed: int
) -> tuple[list[str], list[str]]:
    """Take whole speakers until there are enough files; return what was taken and what is left."""
    spoken: dict[str, list[str]] = {}
    for file, speaker in zip(files, speakers_of(files, pattern), strict=True):
        spoken.setdefault(speaker, []).append(file)
    taken: list[str] = []
    left = dict(spoken)
    for speaker in intake.shuffled(spoken, seed):
        if len(taken) >= enough:
            break
        taken += left.pop(speaker)
    if not left:
        raise PedigreeError(
            f"{raw}: no speaker is left to train on after {split}, for file names tell of {len(spoken)} there: "
            f"name {split}'s clips in {raw / LISTS[split]}, or set prepare.speaker to what tells speakers apart"
        )
    return sorted(taken), sorted(file for each in left.values() for file in each)


def _check_words(raw: Path, split: str, words: Sequence[str], files: Iterable[str]) -> None:
    spoken = {file.split("/")[0] for file in files}
    if lost := [word for word in words if word not in spoken]:
        if (name := LISTS.get(split)) and (raw / name).is_file():
            remedy = f"name some in {raw / name}"
        else:
            remedy = "set another prepare.seed or prepare.speaker, larger shares, or name clips in the two lists"
        raise PedigreeError(f"{raw}: {split} gets no clip of {intake.listed(lost)}: {remedy}")
