"""Folders of sound files -> int16 clips of one length, labels and file names."""

from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from components import arrays, intake
from components.contracts import Batch, Manifest, Refusal
from components.speech.decode import decode
from components.speech.params import SpeechParams, SpeechPrepareParams
from components.speech.words import LISTS, SYNTHETIC, Survey, speakers_of, survey


class SpeechFacts(BaseModel):
    """What the network and its callers need to know of the clips."""

    model_config = ConfigDict(frozen=True)

    classes: list[str] = Field(description="The words, sorted; a label is a place in this list")
    rate: int = Field(description="Samples a second")
    seconds: float = Field(description="Length of every clip")
    speaker: str = Field(
        description="Regular expression by which a file's name tells who speaks; empty where names tell of nobody"
    )
    counts: dict[str, dict[str, int]] = Field(description="Clips by split and word")
    speakers: dict[str, int] = Field(description="Speakers by split")


def prepare(raw: Path, out: Path, params: SpeechParams) -> Manifest:
    """Write each split's clips (N, samples), labels (N,) and file names into the empty folder `out`.

    Without lists no speaker is in two splits; identical clips never are. Memory holds a few clips, the names of
    all files, and some 150 bytes for each test and val file.

    Raises:
        PedigreeError: the folders and lists do not fit together, or too many files cannot be used.
    """
    options = params.prepare
    found = survey(raw, options)
    parts, refused = _write(raw, out, found, options)
    intake.check_classes(raw, parts, found.words, dict.fromkeys(parts, found.words), "clip")
    speakers = {split: speakers_of(intake.file_names(out, split), found.speaker) for split in parts}
    facts = SpeechFacts(
        classes=found.words,
        rate=options.rate,
        seconds=options.seconds,
        speaker=found.speaker,
        counts=intake.class_counts(parts, found.words),
        speakers={split: len(set(names)) for split, names in speakers.items()},
    )
    splits = {name: part.described() for name, part in parts.items()}
    return Manifest(task="speech", splits=splits, refused=refused, facts=facts.model_dump(), note=_note(raw, found))


def _note(raw: Path, found: Survey) -> str:
    """Return what must be said wherever a number made on this data is shown."""
    notes = ["synthetic speech"] if (raw / SYNTHETIC).is_file() else []
    if not found.speaker and not all((raw / name).is_file() for name in LISTS.values()):
        notes.append("no file name tells who speaks: a speaker may be in two splits")
    return "; ".join(notes)


def load_split(prepared: Path, split: str) -> Batch:
    """Return clip, int16 (N, samples), and label, int64 (N,), on memory-mapped files.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    return {
        "clip": arrays.load(prepared / f"{split}.clips.npy"),
        "label": arrays.load(prepared / f"{split}.labels.npy"),
    }


def _write(
    raw: Path, out: Path, found: Survey, options: SpeechPrepareParams
) -> tuple[dict[str, intake.Part], list[Refusal]]:
    """Write all splits; return them by name, and the refusals sorted by file."""
    parts: dict[str, intake.Part] = {}
    columns = {"clips": (np.int16, (round(options.rate * options.seconds),))}
    with intake.filling("speech", "clip", raw, out, partial(_read, raw, options), found.total) as filler:
        for split in intake.ORDER:
            with intake.writing(out, split, columns) as part:
                for label, word in enumerate(found.words):
                    filler.fill(part, label, [file for file in found.parts[split] if file.startswith(f"{word}/")])
            parts[split] = part
    for file in found.strays:
        filler.refuse(file, "outside the words' folders")
    return parts, filler.refused(options.max_refused)


def _read(raw: Path, options: SpeechPrepareParams, file: str) -> intake.Sample:
    data = intake.contents(raw, file, "audio")
    clip = decode(data, options.rate, options.seconds, options.max_seconds, options.max_clipped)
    return intake.Sample({"clips": clip}, intake.digest(clip))
