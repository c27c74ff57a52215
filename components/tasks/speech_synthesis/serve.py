"""The served voice: a text in, a wav file out."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from components import requests
from components.contracts import Manifest, Predict, Prepared, Rejected, Row, Served
from components.datasets.ingest import Unusable, named
from components.sound.recordings.intake import texts_of
from components.sound.recordings.transcripts import normalised
from components.tasks.speech_synthesis import synthesis
from components.tasks.speech_synthesis.evaluate import wav
from components.tasks.speech_synthesis.model import Voice
from components.tasks.speech_synthesis.params import SynthesisParams
from components.tasks.speech_synthesis.prepare import TEXT, SynthesisFacts, ids_of

TOGETHER = 8
"""Texts that are planned at once."""


class Settings(BaseModel):
    """The params of a request, with their defaults."""

    model_config = ConfigDict(frozen=True)

    speed: float = Field(1.0, ge=0.25, le=4, description="Multiple of the voice's own speed")
    seed: int = Field(synthesis.SEED, ge=0, lt=2**31, strict=True, description="Seed of the phases")


def served(manifest: Manifest, params: SynthesisParams) -> Served:
    """Describe requests and answers."""
    facts = SynthesisFacts.model_validate(manifest.facts)
    return Served(
        inputs={"text": "string"},
        outputs={"sound": "binary", "seconds": "double"},
        example={"text": facts.example},
        file="text",
        lines={},
        requirements=("numpy", "soundfile", "torchaudio"),
        params=Settings().model_dump(),
        media={"sound": "audio/wav"},
    )


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Yield the test texts."""
    yield from ({"text": text} for text in texts_of(prepared.folder, "test", TEXT))


def load_predict(model: nn.Module, manifest: Manifest, params: SynthesisParams) -> Predict:
    """Return the function that answers rows of `{"text": …}`.

    An answer is `{"sound": bytes, "seconds": float}`, a wav file of 16 bits and its length. It depends on the text,
    the speed and the seed alone. `evaluate.limits` has the limits of texts and answers.
    The function raises PedigreeError for the entire request if a setting is invalid.
    """
    assert isinstance(model, Voice), "speech needs its parts"
    facts, limits = SynthesisFacts.model_validate(manifest.facts), params.evaluate.limits
    model.eval()
    device = next(model.parameters()).device

    @torch.inference_mode()
    def read(speed: float, row: Row) -> synthesis.Planned:
        text = row.get("text")
        if not isinstance(text, str):
            raise Unusable(f"expected a string in the column text and found {named(text)}")
        if len(text) > limits.characters:
            raise Unusable(f"{len(text):,} characters are over {limits.characters:,}; send it in parts")
        usable = normalised(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), params.prepare.text)
        ids = ids_of(usable, facts.characters, "the texts that the voice has learnt from")
        plan = synthesis.planned(model, torch.tensor([ids], device=device), speed)
        seconds = (plan.frames - 1) * model.spectra.hop / facts.rate
        if seconds > limits.seconds:
            raise Unusable(f"it would take {seconds:,.1f} s, over {limits.seconds:g}; send it in parts")
        return plan

    @torch.inference_mode()
    def answer(seed: int, wanted: list[synthesis.Planned]) -> list[Row]:
        sounds = [synthesis.sound_of(model, each, seed) for each in wanted]
        return [{"sound": wav(sound, facts.rate), "seconds": len(sound) / facts.rate} for sound in sounds]

    def predict(rows: list[Row], settings: Mapping[str, Any]) -> list[Row | Rejected]:
        chosen = requests.settings(Settings, settings)
        return requests.answer_rows(
            rows, partial(read, chosen.speed), partial(answer, chosen.seed), "text", TOGETHER
        )

    return predict
