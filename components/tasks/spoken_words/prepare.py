"""Folders of sound files -> int16 clips of one length, labels and file names."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from components.contracts import Manifest, RejectedFile
from components.datasets import arrays, groups, ingest, raw_files
from components.datasets.splits import Columns
from components.sound.decode import decode, seconds_of
from components.sound.recordings.recording import SYNTHETIC
from components.tasks.spoken_words.params import SpeechParams, SpeechPrepareParams
from components.tasks.spoken_words.words import LISTS, Survey, speakers_of, survey

log = logging.getLogger("pedigree.prepare")


class SpeechFacts(BaseModel):
    """Facts about the clips that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    classes: list[str] = Field(description="The words, sorted; a label is an index into this list")
    rate: int = Field(description="Samples per second")
    seconds: float = Field(description="Length of every clip")
    speaker: str = Field(
        description="Regular expression that finds the speaker in a file's name; empty if names have no speaker"
    )
    counts: dict[str, dict[str, int]] = Field(description="Clips by split and word")
    speakers: dict[str, int] = Field(description="Speakers by split")


def prepare(raw: Path, out: Path, params: SpeechParams) -> Manifest:
    """Write each split's clips (N, samples), labels (N,) and file names into the empty folder `out`.

    Without lists, no speaker is in two splits. Identical clips never are. Memory holds a few clips, the names of
    all files, and about 150 bytes for each test and val file.

    Raises:
        PedigreeError: the folders and lists are inconsistent, or too many files cannot be used.
    """
    options = params.prepare
    found = survey(raw, options)
    parts, rejected = _write(raw, out, found, options)
    ingest.check_classes(raw, parts, found.words, dict.fromkeys(parts, found.words), "clip")
    speakers = {split: speakers_of(ingest.file_names(out, split), found.speaker) for split in parts}
    facts = SpeechFacts(
        classes=found.words,
        rate=options.rate,
        seconds=options.seconds,
        speaker=found.speaker,
        counts=ingest.class_counts(parts, found.words),
        speakers={split: len(set(names)) for split, names in speakers.items()},
    )
    splits = {name: part.described() for name, part in parts.items()}
    return Manifest(
        task="spoken_words",
        splits=splits,
        rejected=rejected,
        ignored=raw_files.about(raw),
        facts=facts.model_dump(),
        drawn=ingest.drawn(found.drawn, len(found.parts["test"]), parts["test"]),
        note="; ".join([*_notes(raw, found), *_shared(raw, speakers), *_cut(raw, parts, options)]),
    )


def _notes(raw: Path, found: Survey) -> list[str]:
    """Return the notes that accompany all results on this data."""
    notes = ["synthetic speech"] if (raw / SYNTHETIC).is_file() else []
    if not found.speaker and len(found.lists) < len(LISTS):
        notes.append("file names do not identify speakers: a speaker may be in two splits")
    return notes


def _shared(raw: Path, speakers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a note for each split with speakers that are in train, too, as lists may have it; warn of them."""
    notes = []
    for split in LISTS:
        if note := groups.shared(speakers, split, "train", "speaker"):
            notes.append(note)
            log.warning(f"{raw}: {note}: results say little of other people's voices")
    return notes


def _cut(raw: Path, parts: Mapping[str, ingest.Part], options: SpeechPrepareParams) -> list[str]:
    """Return a note if clips are longer than `prepare.seconds`, and so are cut; warn of them."""
    cut = sum(int(part.sums[0]) for part in parts.values() if part.sums is not None)
    if not cut:
        return []
    clips = sum(part.rows for part in parts.values())
    note = f"{cut:,} of {clips:,} clips are longer than prepare.seconds ({options.seconds:g}), and cut at the end"
    log.warning(f"{raw.name}: {note}: set it to the length of most clips")
    return [note]


def load_split(prepared: Path, split: str) -> Columns:
    """Return clip, int16 (N, samples), and label, int64 (N,), on memory-mapped files.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    return Columns(
        {
            "clip": arrays.load(prepared / f"{split}.clips.npy"),
            "label": arrays.load(prepared / f"{split}.labels.npy"),
        }
    )


def _write(
    raw: Path, out: Path, found: Survey, options: SpeechPrepareParams
) -> tuple[dict[str, ingest.Part], list[RejectedFile]]:
    """Write all splits; return them by name, and the rejections sorted by file."""
    parts: dict[str, ingest.Part] = {}
    columns = {"clips": (np.int16, (round(options.rate * options.seconds),))}
    with ingest.split_writer("clip", raw, out, partial(_read, raw, options), found.total) as writer:
        for split in ingest.ORDER:
            with ingest.writing(out, split, columns) as part:
                for label, folder in enumerate(found.folders.values()):
                    writer.fill(part, label, [file for file in found.parts[split] if file.startswith(f"{folder}/")])
            parts[split] = part
    for file in found.strays:
        writer.reject(file, "outside the words' folders")
    return parts, writer.rejected(options.max_rejected)


def _read(raw: Path, options: SpeechPrepareParams, file: str) -> ingest.Sample:
    data = ingest.contents(raw, file, "audio")
    clip = decode(data, options.rate, options.seconds, options.max_seconds, options.max_clipped)
    is_cut = seconds_of(data) > options.seconds
    return ingest.Sample({"clips": clip}, ingest.digest(clip), np.array([is_cut], np.uint64))
