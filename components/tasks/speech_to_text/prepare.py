"""Recordings with transcripts -> sound or cepstra, token ids and texts, and the tokenizer."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from components.contracts import Manifest, Part, RejectedFile
from components.datasets import arrays, groups, ingest, ragged, raw_files
from components.datasets.ingest import Unusable
from components.datasets.readers import Readers, ahead, readers
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.sound import cepstra, ctc
from components.sound.decode import decode_whole
from components.sound.params import FeatureParams
from components.sound.recordings import layouts, sphinx
from components.sound.recordings.recording import SYNTHETIC, Found, Recording
from components.tasks.speech_to_text.params import RecognitionParams, RecognitionPrepareParams
from components.tasks.speech_to_text.transcripts import normalised
from components.text import ngrams, tokens

log = logging.getLogger("pedigree.prepare")

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


class Survey(NamedTuple):
    """The recordings with normalised transcripts."""

    splits: dict[str, list[Recording]]
    """Splits that are given; the other ones are to be drawn from train."""
    rejected: list[RejectedFile]
    total: int


def survey(raw: Path, options: RecognitionPrepareParams) -> Survey:
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
                splits[split].append(each._replace(text=text, speaker=each.speaker or _speaker(each, options)))
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


def _speaker(recording: Recording, options: RecognitionPrepareParams) -> str:
    return groups.found([recording.file], options.speaker, "speaker").get(recording.file, "")


def prepare(raw: Path, out: Path, params: RecognitionParams) -> Manifest:
    """Write each split's sound or cepstra, token ids, texts and files into the empty folder `out`.

    The tokenizer and the n-grams are learnt from the training transcripts only. If file names or the layout tell
    the speakers, no speaker is in two splits that are drawn here. Memory holds all transcripts and some recordings.

    Raises:
        PedigreeError: there are no recordings, they cannot be divided, or too many are rejected.
    """
    options = params.prepare
    found = survey(raw, options)
    splits, drawn, notes = _divided(raw, found.splits, options)
    tokenizer = tokens.train(options.tokens.learnt, (each.text for each in splits["train"]))
    kinds = {_kind(each.file) for own in splits.values() for each in own}
    if len(kinds) > 1:
        raise PedigreeError(f"{raw} has both sound and cepstra: leave one kind there")
    (kind,) = kinds
    rejected = list(found.rejected)
    parts: dict[str, Written] = {}
    with readers(found.total) as pool:
        for split in ingest.ORDER:
            parts[split] = _write(out, split, splits[split], Reading(raw, kind, params, tokenizer, pool), parts)
            rejected += parts[split].rejected
    rejected.sort(key=lambda each: each.file)
    ingest.expect_few(raw, out, rejected, found.total, options.max_rejected)
    for split, part in parts.items():
        if not part.recordings:
            raise PedigreeError(f"{raw} has no recording for {split} that can be used: add some")
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
        hours={split: round(part.seconds / 3600, 4) for split, part in parts.items()},
        seen=sum(text in known for text in test) / len(test),
    )
    return Manifest(
        task="speech_to_text",
        splits={split: part.described for split, part in parts.items()},
        rejected=rejected,
        ignored=raw_files.about(raw),
        facts=facts.model_dump(),
        drawn=drawn,
        note="; ".join(
            [
                *(["synthetic speech"] if (raw / SYNTHETIC).is_file() else []),
                *filter(None, [raw_files.composed(raw, "recordings")]),
                *notes,
            ]
        ),
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


def _divided(
    raw: Path, given: Mapping[str, Sequence[Recording]], options: RecognitionPrepareParams
) -> tuple[dict[str, list[Recording]], str, list[str]]:
    """Draw the splits that are missing from train, or, with `resplit`, test and val from all recordings.

    Returns the splits, what was drawn for testing, and notes.
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
    return parts, drawn, notes


class Reading(NamedTuple):
    """How recordings are read."""

    raw: Path
    kind: Kind
    params: RecognitionParams
    tokenizer: Tokenizer
    pool: Readers


class Written(NamedTuple):
    """A split that was written."""

    described: Part
    recordings: list[Recording]
    rejected: list[RejectedFile]
    digests: dict[bytes, str]
    """Of each recording, to its file."""
    seconds: float


def _write(
    out: Path, split: str, recordings: Sequence[Recording], how: Reading, earlier: Mapping[str, Written]
) -> Written:
    """Write a split's recordings; one that is in an earlier split, or too short for its text, is rejected."""
    options, progress = how.params.prepare, Progress(log)
    written, rejected, digests, length = list[Recording](), list[RejectedFile](), dict[bytes, str](), 0
    by_file = {each.file: each for each in recordings}
    with ExitStack() as stack:
        shape = (np.int16, ()) if how.kind == "audio" else (np.float32, (cepstra.COEFFICIENTS,))
        sounds, targets, texts = (
            stack.enter_context(ragged.Writer(out / f"{split}.{name}", *each))
            for name, each in ((SOUND, shape), (TARGET, (np.int32, ())), (TEXT, (np.uint8, ())))
        )
        files = stack.enter_context((out / f"{split}.files.txt").open("w", encoding="utf-8", newline="\n"))
        reading = partial(read, how.raw, how.kind, options)
        for file, outcome in ahead(how.pool, reading, Unusable, [*by_file]):
            recording = by_file[file]
            ids = tokens.encode(how.tokenizer, recording.text)
            problem = outcome if isinstance(outcome, str) else _misfit(outcome, ids, how.kind, options)
            if not problem and not isinstance(outcome, str):
                digest = ingest.digest(outcome)
                twin = next((each.digests[digest] for each in earlier.values() if digest in each.digests), None)
                problem = f"duplicate of the recording {twin} of another split" if twin else ""
                digests.setdefault(digest, file)
            if problem or isinstance(outcome, str):
                rejected.append(RejectedFile(file=file, reason=problem))
                continue
            sounds.append(outcome)
            targets.append(np.array(ids, np.int32))
            texts.append(np.frombuffer(recording.text.encode(), np.uint8))
            files.write(f"{file}\n")
            written.append(recording)
            length += len(outcome)
            progress.say(f"{split}: {len(written) + len(rejected):,} of {len(recordings):,} recordings read")
    speakers = "".join(f"{each.speaker}\n" for each in written)
    (out / f"{split}.speakers.txt").write_text(speakers, encoding="utf-8", newline="\n")
    seconds = length / options.rate if how.kind == "audio" else length * sphinx.HOP
    described = Part(samples=len(written), sha256=arrays.joint_sha256(sounds, targets, texts))
    return Written(described, written, rejected, digests, seconds)


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


def texts_of(prepared: Path, split: str) -> list[str]:
    """Return the transcripts of a split, as they are counted."""
    rows = ragged.load(prepared / f"{split}.{TEXT}")
    return [bytes(rows[index].numpy()).decode() for index in range(len(rows))]


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
