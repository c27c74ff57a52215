"""Recordings of one voice with transcripts -> sound, characters and pitch, and what the networks need of both."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from components.contracts import Manifest
from components.datasets import ingest, ragged, raw_files
from components.datasets.ingest import Unusable
from components.datasets.readers import readers
from components.datasets.splits import Columns
from components.display import first
from components.sound import pitch
from components.sound.decode import decode_whole
from components.sound.params import FeatureParams
from components.sound.recordings import intake
from components.sound.recordings.recording import Recording
from components.tasks.speech_synthesis.params import SynthesisParams, SynthesisPrepareParams
from components.tasks.speech_synthesis.spectra import Spectra

SOUND, TARGET, TEXT, PITCH = "sound", "target", "text", "pitch"
"""Names of the arrays: samples, characters, the bytes of the text, and the pitch of each frame in Hz."""
COLUMNS = {SOUND: (np.int16, ()), TARGET: (np.int32, ()), TEXT: (np.uint8, ()), PITCH: (np.float32, ())}


class SynthesisFacts(BaseModel):
    """Facts about the recordings that the networks and their callers need."""

    model_config = ConfigDict(frozen=True)

    rate: int = Field(description="Samples per second")
    features: FeatureParams
    characters: str = Field(description="All characters of the training transcripts, sorted")
    mean: list[float] = Field(description="Mean of each mel band of the training recordings, in nepers")
    std: list[float] = Field(description="Standard deviation of each mel band")
    pitch: tuple[float, float] = Field(
        description="Mean and standard deviation of the logarithm of the training recordings' pitch in Hz"
    )
    speakers: int = Field(description="Speakers of the training recordings; 0 if none is known")
    hours: dict[str, float] = Field(description="Hours of recordings by split")
    example: str = Field(description="A short training transcript")


def survey(raw: Path, options: SynthesisPrepareParams) -> intake.Survey:
    """Return the recordings without opening a sound file; raises as `intake.survey` does."""
    return intake.survey(raw, options)


def prepare(raw: Path, out: Path, params: SynthesisParams) -> Manifest:
    """Write each split's sound, characters, texts, pitch and files into the empty folder `out`.

    Raises:
        PedigreeError: there are no recordings, they cannot be divided, or too many are rejected.
    """
    options = params.prepare
    found = survey(raw, options)
    splits, drawn, notes = intake.divided(raw, found.splits, options)
    characters = "".join(sorted({letter for each in splits["train"] for letter in each.text}))
    reading = partial(_rows, raw, options, characters)
    parts: dict[str, intake.Written] = {}
    with readers(found.total) as pool:
        for split in ingest.ORDER:
            parts[split] = intake.write(out, split, splits[split], COLUMNS, reading, pool, parts)
    rejected = intake.checked(raw, out, found, parts, options.max_rejected)
    train = parts["train"].recordings
    speakers = len({each.speaker for each in train} - {""})
    if speakers > 1:
        notes.append(f"{speakers:,} speakers, who are learnt as one voice")
    mean, std = _bands(out, options)
    facts = SynthesisFacts(
        rate=options.rate,
        features=options.features,
        characters=characters,
        mean=mean,
        std=std,
        pitch=_pitch(out),
        speakers=speakers,
        hours={split: round(part.length / options.rate / 3600, 4) for split, part in parts.items()},
        example=min((each.text for each in train), key=lambda text: (abs(len(text) - 30), text)),
    )
    return Manifest(
        task="speech_synthesis",
        splits={split: part.described for split, part in parts.items()},
        rejected=rejected,
        ignored=raw_files.about(raw),
        facts=facts.model_dump(mode="json"),
        drawn=drawn,
        note=intake.note(raw, notes),
    )


def _rows(raw: Path, options: SynthesisPrepareParams, characters: str, recording: Recording) -> intake.Rows:
    """Return a recording's samples, characters, text and pitch; raise Unusable if it cannot be learnt."""
    data = ingest.contents(raw, recording.file, "audio")
    sound = decode_whole(data, options.rate, options.max_seconds, options.max_clipped)
    ids = ids_of(recording.text, characters, "the training transcripts")
    hop = round(options.rate * options.features.hop)
    frames = len(sound) // hop + 1
    if frames < len(ids):
        raise Unusable(
            f"shorter than its transcript: {frames:,} frames cannot have {len(ids):,} characters and silences"
        )
    return {
        SOUND: sound,
        TARGET: np.array(ids, np.int32),
        TEXT: np.frombuffer(recording.text.encode(), np.uint8),
        PITCH: pitch.frequencies(sound, options.rate, hop),
    }


def ids_of(text: str, characters: str, known: str) -> list[int]:
    """Return the indices of a text's characters, from 1, between two that stand for the silence around it.

    0 is padding, and the last index is silence.

    Args:
        text: Normalised, as transcripts are.
        characters: Those that are known.
        known: What has them all, such as "the training transcripts".

    Raises:
        Unusable: it has characters that are not known.
    """
    ids: Mapping[str, int] = {letter: number for number, letter in enumerate(characters, 1)}
    if unseen := sorted(set(text) - set(characters)):
        shown = " ".join(f"{letter!r} (U+{ord(letter):04X})" for letter in first(unseen))
        raise Unusable(f"{known} have no {shown}")
    silence = len(characters) + 1
    return [silence, *(ids[letter] for letter in text), silence]


def _bands(out: Path, options: SynthesisPrepareParams) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of each mel band of the training recordings."""
    spectra, rows = Spectra(options.rate, options.features), ragged.load(out / f"train.{SOUND}")
    count, sums, squares = 0, np.zeros(options.features.mels), np.zeros(options.features.mels)
    with torch.inference_mode():
        for index in range(len(rows)):
            bands = spectra.bands(spectra.power(rows[index][None]))[0].double().numpy()
            count, sums, squares = count + len(bands), sums + bands.sum(0), squares + np.square(bands).sum(0)
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 1e-4))
    return mean.round(4).tolist(), std.round(4).tolist()


def _pitch(out: Path) -> tuple[float, float]:
    """Return the mean and the standard deviation of the logarithm of the training recordings' pitch."""
    values = ragged.load(out / f"train.{PITCH}").values.double().numpy()
    logarithms = np.log(values[values > 0]) if (values > 0).any() else np.zeros(1)
    return round(float(logarithms.mean()), 4), round(max(float(logarithms.std()), 0.01), 4)


def load_split(prepared: Path, split: str) -> Columns:
    """Return sound, int16, characters, int32, and pitch, float32, on memory-mapped files.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    columns = {name: ragged.load(prepared / f"{split}.{name}") for name in (SOUND, TARGET, PITCH)}
    return Columns({}, columns, columns[SOUND].shapes[:, 0])
