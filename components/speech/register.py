"""The word recogniser as its callers meet it: a sound in, a word with its probability out."""

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile  # type: ignore[import-untyped]
import torch
from torch import nn

from components import classifier
from components.contracts import Manifest, Predict, Served
from components.errors import PedigreeError
from components.intake import Unusable, sent
from components.speech.decode import Samples, convert, decode
from components.speech.prepare import SpeechFacts

BATCH = 64
MAX_SECONDS = 30.0
"""A longer sound in a request is refused."""
LOUDEST = 2.0
"""Samples beyond this are on another scale; those between full scale and this are clipped."""


def served(manifest: Manifest) -> Served:
    """Say what a request and an answer hold; `probabilities` has every word."""
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
    """Return a wav file with a tone that rises from 200 to 2,000 Hz."""
    time = np.arange(round(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * (200 * time + 900 * time**2 / seconds))
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def load_predict(model: nn.Module, manifest: Manifest) -> Predict:
    """Return the function that answers rows of `{"audio": …}` or `{"samples": …, "rate": …}` for this network.

    `audio` is a wav or flac file's bytes, or these in base64, alone or in a data URL. `samples` are one channel's
    numbers on the scale -1..1, `rate` of them a second. A sound is padded or cut at its end to the length of the
    prepared clips, so that a file is answered just as evaluation answers it; only its beginning is heard then.
    All rows of a request are given in the same way, for that is what MLflow's tables can say.
    An answer is `{"word": str, "probability": float, "probabilities": {word: float}}`, of equal logits the first
    word. The function raises PedigreeError, for the whole request, when one row's sound cannot be used.
    """
    facts = SpeechFacts.model_validate(manifest.facts)
    model.eval()
    device = next(model.parameters()).device

    @torch.inference_mode()
    def predict(rows: list[dict[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        answers = []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            clips = np.stack([_clip(row, start + i, facts) for i, row in enumerate(batch)])  # (n, samples)
            answers += classifier.answers(model(torch.from_numpy(clips).to(device)).cpu(), facts.classes, "word")
        return answers

    return predict


def _clip(row: dict[str, Any], index: int, facts: SpeechFacts) -> Samples:
    """Return a row's sound as preparation would have made it."""
    given = {name: value for name, value in row.items() if not _absent(value)}
    try:
        match "audio" in given, "samples" in given, "rate" in given:
            case True, False, False:
                # Who asks wants an answer, however badly the microphone was set: any share may be clipped.
                return decode(sent(given["audio"], "audio"), facts.rate, facts.seconds, MAX_SECONDS, max_clipped=1)
            case False, True, True:
                source = _rate(given["rate"])
                return convert(_wave(given["samples"], source), source, facts.rate, facts.seconds)
    except Unusable as problem:
        raise PedigreeError(f"row {index}: the sound cannot be used: {problem}; send another") from None
    raise PedigreeError(f"row {index}: there is no sound: send either audio, or samples with their rate")


def _absent(value: Any) -> bool:
    """Return whether a column has nothing in this row, for which pandas writes NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _rate(rate: Any) -> int:
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer) or rate % 1:  # NaN for infinity
        raise Unusable(f"expected a whole number in the column rate and found {rate!r}")
    return int(rate)


def _wave(samples: Any, rate: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        wave = np.asarray(samples, np.float32)
    except (TypeError, ValueError):
        raise Unusable("expected a list of numbers in the column samples") from None
    if wave.ndim != 1:
        raise Unusable(f"expected a list of numbers in the column samples and found {wave.ndim} dimensions")
    if wave.size and np.abs(wave).max() > LOUDEST:
        raise Unusable(f"its samples go up to {np.abs(wave).max():g} and belong between -1 and 1")
    if len(wave) > MAX_SECONDS * rate:
        raise Unusable(f"too long: {len(wave) / max(rate, 1):.1f} seconds is over {MAX_SECONDS:g}")
    return wave
