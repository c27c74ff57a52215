"""Recordings with transcripts -> sound or cepstra, token ids and texts, and the tokenizer."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from components.contracts import Manifest
from components.datasets import ingest, ragged, raw_files
from components.datasets.ingest import Unusable
from components.datasets.readers import readers
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.sound import cepstra, ctc
from components.sound.decode import decode_whole
from components.sound.params import FeatureParams
from components.sound.recordings import intake, sphinx
from components.sound.recordings.recording import Recording
from components.tasks.speech_to_text.params import RecognitionParams, RecognitionPrepareParams
from components.text import ngrams, tokens

SOUND, TARGET, TEXT = "sound", "target", "text"
"""Names of the arrays: samples or cepstra, token ids, and the bytes of the text."""
Kind = Literal["audio", "cepstra"]
Values = NDArray[Any]


class RecognitionFacts(BaseModel):
    """Facts about the recordings that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    kind: Kind = Field(description="Whether files are sound, or cepstra in its place")
    rate: int = Field(description="Samples per second; of cepstra, those of the sound that they are of")
    features: FeatureParams
    tokenizer: str = Field(description="Content of tokenizer.json")
    vocabulary: int = Field(description="Number of tokens; the blank is the one after them")
    ngrams: str = Field(description="The language model in the ARPA format, or empty")
    commonest: str = Field(description="The commonest training transcript")
    speakers: dict[str, int] = Field(description="Speakers by split; 0 if none is known")
    hours: dict[str, float] = Field(description="Hours of recordings by split")
    seen: float = Field(description="Share of the test transcripts that are those of training recordings, too")

    @property
    def hop(self) -> float:
        """Seconds between frames: Sphinx makes 100 frames a second."""
        return self.features.hop if self.kind == "audio" else sphinx.HOP


def survey(raw: Path, options: RecognitionPrepareParams) -> intake.Survey:
    """Return the recordings without opening a sound file; raises as `intake.survey` does."""
    return intake.survey(raw, options)


def prepare(raw: Path, out: Path, params: RecognitionParams) -> Manifest:
    """Write each split's sound or cepstra, token ids, texts and files into the empty folder `out`.

    The tokenizer and the n-grams are learnt from the training transcripts only. If file names or the layout tell
    the speakers, no speaker is in two splits that are drawn here. Memory holds all transcripts and some recordings.

    Raises:
        PedigreeError: there are no recordings, they cannot be divided, or too many are rejected.
    """
    options = params.prepare
    found = survey(raw, options)
    splits, drawn, notes = intake.divided(raw, found.splits, options)
    tokenizer = tokens.train(options.tokens.learnt, (each.text for each in splits["train"]))
    kinds = {_kind(each.file) for own in splits.values() for each in own}
    if len(kinds) > 1:
        raise PedigreeError(f"{raw} has both sound and cepstra: leave one kind there")
    (kind,) = kinds
    shape: tuple[DTypeLike, tuple[int, ...]] = (np.int16, ())
    if kind == "cepstra":
        shape = np.float32, (cepstra.COEFFICIENTS,)
    columns = {SOUND: shape, TARGET: (np.int32, ()), TEXT: (np.uint8, ())}
    reading = partial(_rows, raw, kind, options, tokenizer)
    parts: dict[str, intake.Written] = {}
    with readers(found.total) as pool:
        for split in ingest.ORDER:
            parts[split] = intake.write(out, split, splits[split], columns, reading, pool, parts)
    rejected = intake.checked(raw, out, found, parts, options.max_rejected)
    per_second = options.rate if kind == "audio" else 1 / sphinx.HOP
    known = Counter(each.text for each in parts["train"].recordings)
    test = [each.text for each in parts["test"].recordings]
    facts = RecognitionFacts(
        kind=kind,
        rate=options.rate,
        features=options.features,
        tokenizer=tokenizer.to_str(),
        vocabulary=tokenizer.get_vocab_size(),
        ngrams=_ngrams(known.elements(), options),
        commonest=max(known, key=lambda text: (known[text], text)),
        speakers={split: len({each.speaker for each in part.recordings} - {""}) for split, part in parts.items()},
        hours={split: round(part.length / per_second / 3600, 4) for split, part in parts.items()},
        seen=sum(text in known for text in test) / len(test),
    )
    return Manifest(
        task="speech_to_text",
        splits={split: part.described for split, part in parts.items()},
        rejected=rejected,
        ignored=raw_files.about(raw),
        facts=facts.model_dump(),
        drawn=drawn,
        note=intake.note(raw, notes),
    )


def _kind(file: str) -> Kind:
    return "cepstra" if PurePosixPath(file).suffix == sphinx.CEPSTRA else "audio"


def _ngrams(texts: Iterable[str], options: RecognitionPrepareParams) -> str:
    """Return the n-grams of a file, or those that are counted, as text."""
    if not options.ngrams.order:
        return ""
    if options.ngrams.from_:
        return ngrams.read(Path(options.ngrams.from_), options.ngrams.order)
    return ngrams.counted((text.split() for text in texts), options.ngrams.order).arpa()


def _rows(
    raw: Path, kind: Kind, options: RecognitionPrepareParams, tokenizer: Tokenizer, recording: Recording
) -> intake.Rows:
    """Return a recording's values, token ids and text; raise Unusable if it cannot be read or have its text."""
    values, ids = read(raw, kind, options, recording.file), tokens.encode(tokenizer, recording.text)
    if problem := _misfit(values, ids, kind, options):
        raise Unusable(problem)
    text = np.frombuffer(recording.text.encode(), np.uint8)
    return {SOUND: values, TARGET: np.array(ids, np.int32), TEXT: text}


def read(raw: Path, kind: Kind, options: RecognitionPrepareParams, file: str) -> Values:
    """Return a recording's samples, int16 (N,), or its cepstra, float32 (N, COEFFICIENTS).

    Raises:
        Unusable: it cannot be read.
    """
    return decoded(ingest.contents(raw, file, kind), kind, options, options.max_seconds, options.max_clipped)


def decoded(
    data: bytes, kind: Kind, options: RecognitionPrepareParams, max_seconds: float, max_clipped: float
) -> Values:
    """Return the samples or cepstra of a file's bytes, as `read` does."""
    if kind == "cepstra":
        return cepstra.read(data, round(max_seconds / sphinx.HOP))
    return decode_whole(data, options.rate, max_seconds, max_clipped)


def frames_of(length: int, kind: Kind, options: RecognitionPrepareParams) -> int:
    """Return the number of frames for which the network writes tokens, given the length of what `read` returned."""
    frames = length // round(options.rate * options.features.hop) + 1 if kind == "audio" else length
    return -(-frames // SUBSAMPLING)


SUBSAMPLING = 4
"""Frames of the spectrogram for each one for which the network writes tokens."""


def _misfit(values: Values, ids: Sequence[int], kind: Kind, options: RecognitionPrepareParams) -> str:
    """Return why a recording cannot have its transcript, or an empty string."""
    frames, needed = frames_of(len(values), kind, options), ctc.least_frames(ids)
    if needed <= frames:
        return ""
    return f"shorter than its transcript: {frames:,} frames after subsampling cannot have {needed:,} tokens"


def load_split(prepared: Path, split: str) -> Columns:
    """Return sound, int16 rows of samples or float32 rows of cepstra, and target, int32, on memory-mapped files.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    sound, target = (ragged.load(prepared / f"{split}.{name}") for name in (SOUND, TARGET))
    return Columns({}, {SOUND: sound, TARGET: target}, sound.shapes[:, 0])
