"""The served translation: a text in, its likeliest translations with their scores out."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from components import requests
from components.contracts import Manifest, Predict, Prepared, Rejected, Row, Served
from components.datasets.ingest import Unusable, named
from components.tasks.translation.model import Translator
from components.tasks.translation.params import TranslationParams
from components.tasks.translation.prepare import SOURCE, TranslationFacts, texts
from components.text import tokens
from components.text.lines import expect_usable

TOGETHER = 32
"""Texts that are translated at once."""


class Settings(BaseModel):
    """The params of a request, with their defaults."""

    model_config = ConfigDict(frozen=True, strict=True)

    best: int = Field(1, ge=1, le=100, description="Most translations of a text")


def served(manifest: Manifest, params: TranslationParams) -> Served:
    """Describe requests and answers; `score` is a mean log-probability, as the search compares translations."""
    return Served(
        inputs={"text": "string"},
        outputs={"translation": "string", "score": "double", "translations": "records"},
        example={"text": "Open the file"},
        file="text",
        lines={},
        columns={"text": params.prepare.source},
        header=params.prepare.header,
        requirements=("tokenizers",),
        params=Settings().model_dump(),
    )


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Yield the sources of the test texts."""
    facts = TranslationFacts.model_validate(prepared.manifest.facts)
    yield from ({"text": text} for text in texts(prepared.folder, "test", SOURCE, facts))


def load_predict(model: nn.Module, manifest: Manifest, params: TranslationParams) -> Predict:
    """Return the function that answers rows of `{"text": …}`.

    An answer is `{"translation": str, "score": float, "translations": [{"translation": str, "score": float}, …]}`:
    the best translation and its score, and up to `best` translations, the best first. A score is the
    log-probability in nats, divided by a power of the number of tokens (`evaluate.search.length_penalty`).

    White space at the ends of a text is left out, as in preparation. A text should be a sentence, or what the pairs
    are that were trained on; it may have up to `prepare.longest` characters.
    The function raises PedigreeError for the entire request if a setting is invalid.
    """
    assert isinstance(model, Translator), "the search needs it"
    facts = TranslationFacts.model_validate(manifest.facts)
    tokenizer = tokens.load(facts.tokenizer)
    model.eval()
    device = next(model.parameters()).device

    def read(row: Row) -> list[int]:
        return [*tokens.encode(tokenizer, _text(row, facts.longest)), facts.end]

    @torch.inference_mode()
    def answer(chosen: Settings, inputs: list[list[int]]) -> list[Row]:
        search = params.evaluate.search
        wide = search.model_copy(update={"beam": max(search.beam, chosen.best)})
        source = pad_sequence([torch.tensor(ids) for ids in inputs], batch_first=True).to(device)
        length = torch.tensor([len(ids) for ids in inputs], device=device)
        answers: list[Row] = []
        for found in model.translate(source, length, wide):
            best = [
                {"translation": tokens.decode(tokenizer, each.tokens), "score": each.score}
                for each in found[: chosen.best]
            ]
            answers.append({**best[0], "translations": best})
        return answers

    def predict(rows: list[Row], settings: Mapping[str, Any]) -> list[Row | Rejected]:
        translated = partial(answer, requests.settings(Settings, settings))
        return requests.answer_rows(rows, read, translated, "text", TOGETHER)

    return predict


def _text(row: Row, longest: int) -> str:
    """Return a row's text without white space at its ends."""
    text = row.get("text")
    if not isinstance(text, str):
        raise Unusable(f"expected a string in the column text and found {named(text)}")
    usable = expect_usable(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    if len(usable) > longest:
        raise Unusable(f"{len(usable):,} characters are over {longest:,}; send it sentence by sentence")
    return usable
