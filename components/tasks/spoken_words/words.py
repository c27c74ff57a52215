"""The raw folder of clips: raw/<word>/<file>, and optionally validation_list.txt and testing_list.txt."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.datasets import groups, ingest, raw_files
from components.errors import PedigreeError
from components.sound.recordings.recording import SYNTHETIC
from components.tasks.spoken_words.params import SpeechPrepareParams

log = logging.getLogger("pedigree.prepare")

LISTS = {"test": "testing_list.txt", "val": "validation_list.txt"}
"""The lists of Speech Commands (Warden 2018, arXiv:1804.03209, section 7.1), in the order of selection."""
NOISE = "_background_noise_"
"""Speech Commands' folder of long recordings, which is not a word."""
KNOWN = frozenset((*LISTS.values(), SYNTHETIC))


@dataclass(frozen=True)
class Survey:
    """The files, divided into splits; none has been opened."""

    folders: dict[str, str]
    """Sorted words, in Unicode's form C, to the names of their folders."""
    parts: dict[str, list[str]]
    """Sorted files of each split, as paths below the raw folder."""
    strays: list[str]
    """Files outside the words' folders."""
    speaker: str
    """Pattern that finds the speaker in a file's name; empty if names have no speaker or all the same one."""
    lists: tuple[str, ...]
    """Names of the lists that were obeyed."""
    drawn: str
    """What was drawn for testing; empty if there is a list."""

    @property
    def words(self) -> list[str]:
        """Sorted words; a label is an index into this list."""
        return list(self.folders)

    @property
    def total(self) -> int:
        """Number of files, including strays."""
        return sum(map(len, self.parts.values())) + len(self.strays)


def survey(raw: Path, options: SpeechPrepareParams) -> Survey:
    """Survey the folders and lists without opening sound files.

    Files in a list belong to its split. If test or val has no list, or `resplit` draws anew, speakers are assigned
    to it as a whole, in the order of a hash, first to test, then to val, until the split has enough clips.

    Raises:
        PedigreeError: there are no clips to train on, folders are nested, two folders are the same word, a list is
            invalid, or the speakers cannot be divided.
    """
    entries = sorted(name for name, is_folder in raw_files.visible(raw) if is_folder and name != NOISE)
    _check_layout(raw, entries)
    folders = raw_files.by_name(raw, entries)
    inside = {folder: sorted(name for name, _ in raw_files.visible(raw / folder)) for folder in folders.values()}
    files = [f"{folder}/{name}" for folder, names in inside.items() for name in names]
    words = list(folders.values())
    _check(raw, words, files)
    speaker = options.speaker if len(set(groups.found(files, options.speaker, "speaker").values())) > 1 else ""
    for name in LISTS.values():
        raw_files.expect_target(raw / name)
    lists = {} if options.resplit else {split: name for split, name in LISTS.items() if (raw / name).is_file()}
    _report_speakers(raw, files, speaker, lists)  # before an error that a wrong pattern may cause
    parts = _listed(raw, lists, folders, files)
    assigned = set().union(*parts.values())
    rest = [file for file in files if file not in assigned]
    for split, share in (("test", options.test_share), ("val", options.val_share)):
        if split not in parts:
            parts[split], rest = _take(raw, split, rest, share * len(rest), speaker, options)
    parts["train"] = rest
    for split, chosen in parts.items():
        _check_words(raw, split, words, chosen, lists.get(split, ""), options)
    loose = {name for name, is_folder in raw_files.visible(raw) if not is_folder}
    strays = sorted(loose - KNOWN - {*raw_files.about(raw)})
    drawn = "" if "test" in lists else _drawn(parts["test"], files, speaker)
    return Survey(folders, parts, strays, speaker, tuple(lists.values()), drawn)


def speakers_of(files: Iterable[str], pattern: str) -> list[str]:
    """Return the speaker in each file's name; a file without one counts as a speaker of its own.

    Args:
        files: `<word>/<name>`; if a name begins with the word and "_" or "-", these are skipped.
        pattern: Regular expression with a group `speaker`; an empty one finds no speakers.
    """
    return groups.of_each(list(files), pattern, "speaker")


def _report_speakers(raw: Path, files: Sequence[str], pattern: str, lists: Mapping[str, str]) -> None:
    """Log what the pattern takes for speakers, with counts, and warn if one person seems to be several speakers."""
    found = groups.found(files, pattern, "speaker")
    if not found:
        return
    log.info(f"{raw}: {groups.summary(files, found, 'speaker', 'clip')}")
    if len(lists) < len(LISTS) and (doubt := _doubt(found)):
        log.warning(
            f"{raw}: {doubt}: one person may be several speakers, and in two splits: "
            "set prepare.speaker to a pattern that finds the person, or list clips in the two lists"
        )


def _doubt(found: Mapping[str, str]) -> str:
    """Return what is wrong with the speakers, given that of each file, or an empty string."""
    speakers = len(set(found.values()))
    if speakers > len(found) / 2:
        return f"there are nearly as many speakers as clips, {speakers:,} and {len(found):,}"
    return groups.doubt(found, "speaker")


def _drawn(chosen: Sequence[str], files: Sequence[str], speaker: str) -> str:
    """Return what was drawn for testing."""
    clips = f"{len(chosen):,} of {len(files):,} clips"
    if not speaker:
        return clips
    some, every = (len(set(speakers_of(each, speaker))) for each in (chosen, files))
    return f"{clips}, by {some:,} of {every:,} speakers"


def _check_layout(raw: Path, folders: Sequence[str]) -> None:
    """Check that folders have sound files, and not folders alone."""
    inside = {name: [is_folder for _, is_folder in raw_files.visible(raw / name)] for name in folders}
    nested = [name for name, kinds in inside.items() if kinds and all(kinds)]
    if any(map(raw_files.split_of, nested)):
        raise PedigreeError(
            f"{raw}: {raw_files.listed(nested)} hold folders of words, which is the layout of images: "
            f"put the words' folders directly into {raw}, and list the clips of test and val, "
            f"a line <word>/<file> each, in {' and '.join(LISTS.values())} there"
        )
    if nested:
        raise PedigreeError(
            f"{raw}: {raw_files.listed(nested)} has only folders and no sound files: put the words' folders "
            f"directly into {raw}, and their files directly into them"
        )


def _check(raw: Path, words: Sequence[str], files: Sequence[str]) -> None:
    if not files:
        raise PedigreeError(
            f"{raw}: there are no sound files: run `pedigree data`, or put wav or flac files in {raw}/<word>/"
        )
    filled = {file.split("/")[0] for file in files}
    if empty := [f"{raw / word}" for word in words if word not in filled]:
        raise PedigreeError(f"{raw_files.listed(empty)}: no files there: put some in, or remove the folder")
    if len(words) < 2:
        raise PedigreeError(f"{raw} has only the word {words[0]}: add a folder with clips of another")


def _listed(
    raw: Path, lists: Mapping[str, str], folders: Mapping[str, str], files: Sequence[str]
) -> dict[str, list[str]]:
    """Return the files in the lists by split; lines with a word that has no folder are counted and passed over."""
    # A name that is there exactly comes before one that is the same in another spelling of Unicode.
    existing = {raw_files.same(file): file for file in files} | {file: file for file in files}
    lines = dict[str, str]()
    parts: dict[str, list[str]] = {}
    for split, name in lists.items():
        parts[split], passed_over = [], list[str]()
        for number, line in enumerate(_lines(raw / name), start=1):
            written, where = line.strip().replace("\\", "/").removeprefix("./"), f"{raw / name}:{number}"
            file = existing.get(written) or existing.get(raw_files.same(written))
            if not written:
                continue
            if file is None and raw_files.same(written.split("/")[0]) not in folders:
                passed_over.append(written)
                continue
            if file is None:
                known = raw_files.with_similar([written], files)
                raise PedigreeError(f"{where}: there is no file {known}: add it, or remove the line")
            if file in lines:
                raise PedigreeError(f"{where}: {file} is already in {lines[file]}: remove one of the lines")
            lines[file] = where
            parts[split].append(file)
        parts[split].sort()
        if passed_over:
            missing = sorted({line.split("/")[0] for line in passed_over})
            log.warning(
                f"{raw / name}: {len(passed_over):,} of {len(passed_over) + len(parts[split]):,} lines are passed "
                f"over, as their words have no folder: {raw_files.with_similar(missing, folders)}"
            )
    return parts


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise PedigreeError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8") from None


def _take(
    raw: Path, split: str, files: Sequence[str], enough: float, pattern: str, options: SpeechPrepareParams
) -> tuple[list[str], list[str]]:
    """Select all files of some speakers until there are enough; return the selected and the remaining files."""
    by_speaker: dict[str, list[str]] = {}
    for file, speaker in zip(files, speakers_of(files, pattern), strict=True):
        by_speaker.setdefault(speaker, []).append(file)
    selected: list[str] = []
    remaining = dict(by_speaker)
    for speaker in ingest.shuffled(by_speaker, options.seed, options.resplit):
        if len(selected) >= enough:
            break
        selected += remaining.pop(speaker)
    if not remaining:
        raise PedigreeError(
            f"{raw}: no speaker is left to train on after {split}, as file names have {len(by_speaker)} there: "
            f"list {split}'s clips in {raw / LISTS[split]}{_obeyed(options)}, "
            "or set prepare.speaker to a pattern of more speakers"
        )
    return sorted(selected), sorted(file for each in remaining.values() for file in each)


def _check_words(
    raw: Path, split: str, words: Sequence[str], files: Iterable[str], name: str, options: SpeechPrepareParams
) -> None:
    """Check that a split, of a list of this `name` if it has one, has each word."""
    spoken = {file.split("/")[0] for file in files}
    if lost := [word for word in words if word not in spoken]:
        if name:
            remedy = f"list some in {raw / name}"
        else:
            remedy = (
                "set another prepare.seed or prepare.speaker, larger shares, or list clips in the two lists"
                f"{_obeyed(options)}"
            )
        raise PedigreeError(f"{raw}: {split} gets no clip of {raw_files.listed(lost)}: {remedy}")


def _obeyed(options: SpeechPrepareParams) -> str:
    """Return what it also takes for a list to be obeyed."""
    return " and set prepare.resplit to 0" if options.resplit else ""
