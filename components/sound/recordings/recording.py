"""A recording and its transcript, as files name them; none has been opened."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from components.contracts import RejectedFile
from components.datasets import raw_files
from components.errors import PedigreeError

SYNTHETIC = "SYNTHETIC.txt"
"""A file of this name in the raw folder marks the recordings as synthetic speech."""
SOUNDS = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".sph", ".nist"),
    *(".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr"),
)
"""Suffixes of sound files, in small letters; the last ones are rejected when they are read."""


class Recording(NamedTuple):
    """A file of sound or features, and what is said in it."""

    file: str
    """Its path below the raw folder."""
    text: str
    """As it is written."""
    at: str
    """Where the transcript is, such as train.tsv:12."""
    speaker: str = ""
    """Who speaks, if the layout says so."""


@dataclass
class Found:
    """The recordings by split; those that have none are all in train."""

    splits: dict[str, list[Recording]] = field(default_factory=dict)
    rejected: list[RejectedFile] = field(default_factory=list)
    """What cannot be used, such as a recording without a transcript."""
    read: set[str] = field(default_factory=set)
    """Files that the layout has besides, as paths below the raw folder."""

    def add(self, split: str, recording: Recording) -> None:
        """Add a recording."""
        self.splits.setdefault(split, []).append(recording)

    def reject(self, at: str, reason: str) -> None:
        """Reject a file or a line."""
        self.rejected.append(RejectedFile(file=at, reason=reason))


def walk(raw: Path, below: str = "") -> Iterator[str]:
    """Yield the paths below the raw folder of its visible files, sorted within each folder."""
    for name, is_folder in sorted(raw_files.visible(raw / below)):
        path = (PurePosixPath(below) / name).as_posix()
        if is_folder:
            yield from walk(raw, path)
        else:
            yield path


def split_in(path: str) -> str | None:
    """Return the split that one of a path's folders names, such as train-clean-100, or None."""
    parts = PurePosixPath(path).parts[:-1]
    return next((split for part in parts if (split := raw_files.split_of(part.split("-")[0]))), None)


def expect_one_transcript(raw: Path, splits: Mapping[str, list[Recording]]) -> None:
    """Check that no recording has two transcripts.

    Raises:
        PedigreeError: one has.
    """
    first: dict[str, str] = {}
    for recordings in splits.values():
        for each in recordings:
            if (other := first.setdefault(each.file, each.at)) != each.at:
                raise PedigreeError(
                    f"{raw}: {each.file} has two transcripts, {other} and {each.at}: remove one of them"
                )
