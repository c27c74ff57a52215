"""Recordings with transcripts -> the rows of each split: surveyed, divided, and read in parallel."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import DTypeLike, NDArray

from components.contracts import Part, RejectedFile
from components.datasets import arrays, groups, ingest, ragged, raw_files
from components.datasets.ingest import Unusable
from components.datasets.readers import Readers, ahead
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.sound.params import RecordingsPrepareParams
from components.sound.recordings import layouts
from components.sound.recordings.recording import SYNTHETIC, Found, Recording
from components.sound.recordings.transcripts import normalised

log = logging.getLogger("pedigree.prepare")

Rows = Mapping[str, NDArray[Any]]
"""The row of a recording in each array, by name."""


class Survey(NamedTuple):
    """The recordings with normalised transcripts."""

    splits: dict[str, list[Recording]]
    """Splits that are given; the other ones are to be drawn from train."""
    rejected: list[RejectedFile]
    total: int


def survey(raw: Path, options: RecordingsPrepareParams) -> Survey:
    """Return the recordings without opening a sound file.

    Raises:
        PedigreeError: as `layouts.survey` does, or no transcript of a training recording can be used.
    """
    found = layouts.survey(raw)
    total = sum(map(len, found.splits.values())) + len(found.rejected)
    splits: dict[str, list[Recording]] = {}
    for split, recordings in found.splits.items():
        splits[split] = []
        for each in recordings:
            try:
                text = normalised(each.text, options.text)
            except Unusable as reason:
                found.reject(each.file, str(reason))
            else:
                speaker = " ".join((each.speaker or _speaker(each, options)).split())  # one line in the list
                splits[split].append(each._replace(text=text, speaker=speaker))
    if not splits.get("train"):
        raise PedigreeError(
            f"{raw}: no transcript for training can be used, such as that of {found.rejected[0].file}: "
            f"{found.rejected[0].reason}"
        )
    return Survey(splits, _printable(found), total)


def _printable(found: Found) -> list[RejectedFile]:
    return [
        RejectedFile(file=each.file.encode(errors="backslashreplace").decode(), reason=each.reason)
        for each in found.rejected
    ]


def _speaker(recording: Recording, options: RecordingsPrepareParams) -> str:
    return groups.found([recording.file], options.speaker, "speaker").get(recording.file, "")


class Divided(NamedTuple):
    """The recordings of all splits."""

    splits: dict[str, list[Recording]]
    drawn: str
    """What was drawn for testing; empty if the data have a test split."""
    notes: list[str]


def divided(raw: Path, given: Mapping[str, Sequence[Recording]], options: RecordingsPrepareParams) -> Divided:
    """Draw the splits that are missing from train, or, with `resplit`, test and val from all recordings.

    If it is known who speaks, no speaker is in two splits that are drawn here.

    Raises:
        PedigreeError: there are too few recordings.
    """
    parts = {split: list(own) for split, own in given.items() if own}
    if options.resplit:
        parts = {"train": sorted(each for own in parts.values() for each in own)}
    drawn, notes = "", list[str]()
    for split, share in (("test", options.test_share), ("val", options.val_share)):
        if split in parts:
            continue
        pool = {each.file: each for each in parts["train"]}
        keep = 2 if split == "test" else 1
        if len(pool) <= keep:
            raise PedigreeError(
                f"{raw}: {len(pool):,} recordings for training are too few to draw {split} from them: add some"
            )
        speakers = {file: each.speaker for file, each in pool.items() if each.speaker}
        several = speakers if len(set(speakers.values())) > 1 else {}
        chosen = groups.draw({"": [*pool]}, several, share, keep, options.seed, options.resplit)
        if chosen is None:
            chosen = groups.draw_each({"": [*pool]}, share, keep, options.seed, options.resplit)
            notes.append(f"speakers are too few to draw {split} by them: a speaker is in two splits")
        parts[split] = [each for file, each in pool.items() if file in chosen]
        parts["train"] = [each for file, each in pool.items() if file not in chosen]
        if split == "test":
            own = {each.speaker for each in parts[split]} - {""}
            by = f", by {len(own):,} speaker{'' if len(own) == 1 else 's'}" if several else ""
            drawn = f"{len(chosen):,} of {len(pool):,} recordings{by}"
    return Divided(parts, drawn, notes)


def note(raw: Path, notes: Sequence[str]) -> str:
    """Return the caveats about the recordings of a raw folder, and further ones, as a manifest's note."""
    synthetic = ["synthetic speech"] if (raw / SYNTHETIC).is_file() else []
    return "; ".join([*synthetic, *filter(None, [raw_files.composed(raw, "recordings")]), *notes])


class Written(NamedTuple):
    """A split that was written."""

    described: Part
    recordings: list[Recording]
    rejected: list[RejectedFile]
    digests: dict[bytes, str]
    """Of each recording, to its file."""
    length: int
    """Length of all rows of the first array."""


def write(
    out: Path,
    split: str,
    recordings: Sequence[Recording],
    columns: Mapping[str, tuple[DTypeLike, tuple[int, ...]]],
    read: Callable[[Recording], Rows],
    pool: Readers,
    earlier: Mapping[str, Written],
) -> Written:
    """Write a split's ragged arrays <split>.<name> and lists of files and speakers.

    A recording with the values of one in an earlier split is rejected.

    Args:
        out: The prepared folder.
        split: Its name.
        recordings: Those of the split.
        columns: Type and shape of an element of each array; the first one has the recordings' values.
        read: A module-level function, or a partial of one: returns a recording's rows, or raises Unusable.
        pool: Where recordings are read.
        earlier: The splits that have been written.
    """
    progress, first = Progress(log), next(iter(columns))
    written, rejected, digests, length = list[Recording](), list[RejectedFile](), dict[bytes, str](), 0
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(ragged.Writer(out / f"{split}.{name}", *each))
            for name, each in columns.items()
        }
        files = stack.enter_context((out / f"{split}.files.txt").open("w", encoding="utf-8", newline="\n"))
        for recording, rows in ahead(pool, read, Unusable, recordings):
            if isinstance(rows, str):
                rejected.append(RejectedFile(file=recording.file, reason=rows))
                continue
            digest = ingest.digest(rows[first])
            if twin := next((each.digests[digest] for each in earlier.values() if digest in each.digests), None):
                reason = f"duplicate of the recording {twin} of another split"
                rejected.append(RejectedFile(file=recording.file, reason=reason))
                continue
            digests.setdefault(digest, recording.file)
            for name, writer in writers.items():
                writer.append(rows[name])
            files.write(f"{recording.file}\n")
            written.append(recording)
            length += len(rows[first])
            progress.say(f"{split}: {len(written) + len(rejected):,} of {len(recordings):,} recordings read")
    speakers = "".join(f"{each.speaker}\n" for each in written)
    (out / f"{split}.speakers.txt").write_text(speakers, encoding="utf-8", newline="\n")
    described = Part(samples=len(written), sha256=arrays.joint_sha256(*writers.values()))
    return Written(described, written, rejected, digests, length)


def checked(raw: Path, out: Path, found: Survey, parts: Mapping[str, Written], most: float) -> list[RejectedFile]:
    """Return what was rejected, sorted by file.

    Raises:
        PedigreeError: more than the share `most` was rejected, or a split has no recording.
    """
    rejected = [*found.rejected, *(file for part in parts.values() for file in part.rejected)]
    rejected.sort(key=lambda each: each.file)
    ingest.expect_few(raw, out, rejected, found.total, most)
    for split, part in parts.items():
        if not part.recordings:
            raise PedigreeError(f"{raw} has no recording for {split} that can be used: add some")
    return rejected


def speakers_of(prepared: Path, split: str) -> list[str]:
    """Return who speaks each recording of a split; empty if that is not known.

    Raises:
        PedigreeError: the list is missing.
    """
    path = prepared / f"{split}.speakers.txt"
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        raise PedigreeError(f"{path} is missing: run prepare again") from None


def texts_of(prepared: Path, split: str, name: str) -> list[str]:
    """Return the transcripts of a split, whose bytes are in the array `name`."""
    rows = ragged.load(prepared / f"{split}.{name}")
    return [bytes(rows[index].numpy()).decode() for index in range(len(rows))]
