"""The served recogniser: a recording in; its text, timed words and confidence out."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile  # type: ignore[import-untyped]
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from components import requests
from components.contracts import Manifest, Predict, Prepared, Rejected, Row, Served
from components.datasets import ingest
from components.datasets.ingest import sent
from components.sound import cepstra
from components.tasks.speech_to_text import decoding
from components.tasks.speech_to_text.decoding import Word
from components.tasks.speech_to_text.model import Recogniser
from components.tasks.speech_to_text.params import RecognitionParams
from components.tasks.speech_to_text.prepare import RecognitionFacts, Values, decoded

TOGETHER = 8
"""Pieces of recordings that are processed at once."""
LONGEST = 2 * 3600
"""Longest recording in seconds."""
QUIET = 0.1
"""Seconds over which loudness is measured where a long recording is cut."""


def served(manifest: Manifest, params: RecognitionParams) -> Served:
    """Describe requests and answers."""
    facts = RecognitionFacts.model_validate(manifest.facts)
    column = column_of(facts)
    return Served(
        inputs={column: "binary"},
        outputs={"text": "string", "confidence": "double", "words": "records"},
        example={column: _example(facts)},
        file=column,
        requirements=("numpy", "scipy", "soundfile", "tokenizers", "torchaudio"),
        formats={"nemo": lambda file, answer: [{"audio_filepath": file, "pred_text": answer["text"]}]},
    )


def column_of(facts: RecognitionFacts) -> str:
    """Return the column of a request that takes a file."""
    return facts.kind


def _example(facts: RecognitionFacts) -> bytes:
    """Return a second of a tone that rises from 200 to 2,000 Hz, or of cepstra."""
    if facts.kind == "cepstra":
        values = np.random.default_rng(0).standard_normal((100, cepstra.COEFFICIENTS)).astype(">f4")
        return np.array(values.size, ">i4").tobytes() + values.tobytes()
    time = np.arange(facts.rate) / facts.rate
    file = io.BytesIO()
    soundfile.write(
        file, 0.5 * np.sin(2 * np.pi * (200 * time + 900 * time**2)), facts.rate, "PCM_16", format="WAV"
    )
    return file.getvalue()


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Return the file of each test recording, as a request sends it."""
    folder, facts = raw(), RecognitionFacts.model_validate(prepared.manifest.facts)
    column = column_of(facts)
    return ingest.file_rows(prepared.folder, folder, column, lambda file: ingest.contents(folder, file, facts.kind))


def load_predict(model: nn.Module, manifest: Manifest, params: RecognitionParams) -> Predict:
    """Return the function that answers rows of `{"audio": …}`, or of `{"cepstra": …}` if these were learnt.

    `audio` is a wav, flac, mp3, ogg or SPHERE file as bytes, base64 or a data URL, of up to two hours.
    An answer is `{"text": str, "confidence": float, "words": [{"word": str, "start": float, "end": float,
    "confidence": float}, …]}`, with times in seconds. A confidence is the geometric mean of the probabilities of
    the frames on the text's likeliest path.

    A recording that is longer than `prepare.max_seconds` is cut into pieces of at most that length where it is
    quiet, and these are answered one after the other.
    """
    assert isinstance(model, Recogniser), "answers need its tokens"
    facts = RecognitionFacts.model_validate(manifest.facts)
    model.eval()
    device = next(model.parameters()).device
    column = column_of(facts)

    def read(row: Row) -> Values:
        # Callers want an answer even for badly clipped recordings.
        data = sent(row.get(column), column)
        return decoded(data, facts.kind, params.prepare, max(LONGEST, params.prepare.max_seconds), 1)

    @torch.inference_mode()
    def heard(pieces: Sequence[Values]) -> list[tuple[list[Word], float, int]]:
        """Return the words, the confidence and the number of frames of each piece."""
        sound = pad_sequence([torch.from_numpy(piece) for piece in pieces], batch_first=True).to(device)
        length = torch.tensor([len(piece) for piece in pieces], device=device)
        log_probs, frames = model(sound, length)
        found = decoding.best(model, log_probs, frames, params.evaluate.search)
        lengths = frames.cpu().tolist()
        return [
            (*decoding.timed(model, own[:most], ids, facts.hop), most)
            for own, most, ids in zip(log_probs.cpu(), lengths, found, strict=True)
        ]

    per_second = facts.rate if facts.kind == "audio" else round(1 / facts.hop)

    def answer(recordings: list[Values]) -> list[Row]:
        pieces = [
            (number, first, piece)
            for number, values in enumerate(recordings)
            for first, piece in cut(values, round(params.prepare.max_seconds * per_second), per_second)
        ]
        words: list[list[Word]] = [[] for _ in recordings]
        logs, counts = np.zeros(len(recordings)), np.zeros(len(recordings))
        for begin in range(0, len(pieces), TOGETHER):
            batch = pieces[begin : begin + TOGETHER]
            for (number, first, _), (own, confidence, frames) in zip(
                batch, heard([piece for *_, piece in batch]), strict=True
            ):
                words[number] += [_later(word, first / per_second) for word in own]
                logs[number] += frames * np.log(max(confidence, 1e-30))
                counts[number] += frames
        return [
            {
                "text": " ".join(word.word for word in own),
                "confidence": float(np.exp(total / count)),
                "words": [asdict(word) for word in own],
            }
            for own, total, count in zip(words, logs.tolist(), counts.tolist(), strict=True)
        ]

    def predict(rows: list[Row], settings: Mapping[str, Any]) -> list[Row | Rejected]:
        return requests.answer_rows(rows, read, answer, "recording", TOGETHER)

    return predict


def _later(word: Word, seconds: float) -> Word:
    return Word(word.word, round(word.start + seconds, 3), round(word.end + seconds, 3), word.confidence)


def cut(values: Values, longest: int, per_second: int) -> Iterator[tuple[int, Values]]:
    """Yield pieces of at most `longest` values, and where they begin; cuts are where the second half is quietest.

    Args:
        values: Samples (N,), or cepstra (N, D), whose first coefficient is the loudness.
        longest: Most values of a piece.
        per_second: Values a second.
    """
    first = 0
    while len(values) - first > longest:
        window = max(1, round(QUIET * per_second))
        half = values[first + longest // 2 : first + longest].astype(np.float64)
        loudness = np.square(half) if half.ndim == 1 else half[:, 0]
        sums = np.concatenate([[0.0], loudness.cumsum()])
        quietest = int(np.argmin(sums[window:] - sums[:-window])) + window // 2 if len(loudness) > window else 0
        end = first + longest // 2 + max(quietest, 1)
        yield first, values[first:end]
        first = end
    yield first, values[first:]
