"""The served word recogniser: a sound in, a word with its probability out."""

import io
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile  # type: ignore[import-untyped]
import torch
from torch import nn

from components.classification.answers import answers
from components.contracts import Manifest, Predict, Prepared, Row, Served
from components.datasets import ingest
from components.datasets.ingest import Unusable, sent
from components.display import brief
from components.requests import answer_rows
from components.sound.decode import Samples, convert, decode
from components.tasks.spoken_words.params import SpeechParams
from components.tasks.spoken_words.prepare import SpeechFacts

BATCH = 64


def served(manifest: Manifest, params: SpeechParams) -> Served:
    """Describe requests and answers; `probabilities` contains every word."""
    facts = SpeechFacts.model_validate(manifest.facts)
    return Served(
        inputs={"audio": "binary", "samples": "doubles", "rate": "long"},
        optional=frozenset({"audio", "samples", "rate"}),
        outputs={"word": "string", "probability": "double", "probabilities": "map"},
        example={"audio": _example(facts.rate, facts.seconds)},
        file="audio",
        requirements=("numpy", "scipy", "soundfile", "torchaudio"),
    )


def _example(rate: int, seconds: float) -> bytes:
    """Return a wav file of a tone that rises from 200 to 2,000 Hz."""
    time = np.arange(round(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * (200 * time + 900 * time**2 / seconds))
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Return the file of each test clip, as a request sends it."""
    folder = raw()
    return ingest.file_rows(prepared.folder, folder, "audio", lambda file: ingest.contents(folder, file, "audio"))


def load_predict(model: nn.Module, manifest: Manifest, params: SpeechParams) -> Predict:
    """Return the function that answers rows of `{"audio": …}` or `{"samples": …, "rate": …}`.

    `audio` is a wav or flac file as bytes, base64 or a data URL. `samples` are mono samples on the scale -1..1,
    with `rate` samples per second. As in preparation, a sound is padded or cut at its end to the length of the
    prepared clips, so that answers equal the predictions of evaluation. All rows of a request must have the same
    columns, as MLflow's tables require.
    An answer is `{"word": str, "probability": float, "probabilities": {word: float}}`; the first of several equal
    logits wins.
    """
    facts = SpeechFacts.model_validate(manifest.facts)
    model.eval()
    device = next(model.parameters()).device

    @torch.inference_mode()
    def answer(clips: list[Samples]) -> list[Row]:
        logits = model(torch.from_numpy(np.stack(clips)).to(device)).cpu()  # (n, words)
        return answers(logits, facts.classes, "word")

    read = partial(_clip, facts, params.prepare.max_seconds)
    return lambda rows, settings: answer_rows(rows, read, answer, "sound", BATCH)


def _clip(facts: SpeechFacts, max_seconds: float, row: Row) -> Samples:
    """Return a row's sound, converted as in preparation."""
    given = {name: value for name, value in row.items() if not _absent(value)}
    match "audio" in given, "samples" in given, "rate" in given:
        case True, False, False:
            # Callers want an answer even for badly clipped recordings.
            return decode(sent(given["audio"], "audio"), facts.rate, facts.seconds, max_seconds, max_clipped=1)
        case False, True, True:
            source = _rate(given["rate"])
            return convert(_wave(given["samples"], source, max_seconds), source, facts.rate, facts.seconds)
    raise Unusable("there is none: send either audio, or samples with their rate")


def _absent(value: Any) -> bool:
    """Return whether a column has no value in this row; pandas represents that by NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _rate(rate: Any) -> int:
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer) or rate % 1:  # inf % 1 is NaN
        raise Unusable(f"expected a whole number in the column rate and found {brief(rate)}")
    return int(rate)


def _wave(samples: Any, rate: int, max_seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        given = np.asarray(samples)
    except ValueError:  # its lists have different lengths
        given = np.asarray(None)
    if given.dtype.kind not in "fiu":
        raise Unusable("expected a list of numbers in the column samples")
    wave = given.astype(np.float32)
    if wave.ndim != 1:
        raise Unusable(f"expected a list of numbers in the column samples and found {wave.ndim} dimensions")
    if len(wave) > max_seconds * rate:
        raise Unusable(f"too long: {len(wave) / max(rate, 1):.1f} seconds is over {max_seconds:g}")
    return wave
