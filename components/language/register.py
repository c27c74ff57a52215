"""The language model as its callers meet it: a text in, its continuation or its tokens' probabilities out."""

import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from components.contracts import Manifest, Predict, Served
from components.errors import PedigreeError
from components.language import tokens
from components.language.generate import generate, score
from components.language.prepare import LanguageFacts
from components.params import nearest

LARGEST = 2**20
"""Bytes of a row's text in UTF-8, at most."""


class Settings(BaseModel):
    """What a request may set, with what holds where it does not."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    score: bool = Field(False, description="Give the text's own tokens' log-probabilities, and write nothing")
    temperature: float = Field(1.0, ge=0, description="Divides the logits; 0 takes the likeliest token")
    top_k: int = Field(0, ge=0, lt=2**31, description="Draw from that many of the likeliest tokens; 0 is all")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the fewest tokens of that share of probability")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the drawing; the same for each row")
    stop: str = Field("", max_length=1000, description="The continuation ends before this text; empty is none")
    max_length: int = Field(100, ge=1, le=10_000, description="Tokens of a continuation, at most")


def served(manifest: Manifest) -> Served:
    """Say what a request and an answer hold; the request's params are those of `Settings`."""
    return Served(
        inputs={"text": "string"},
        outputs={"continuation": "string", "tokens": "strings", "log_probabilities": "doubles"},
        example={"text": "Return the"},
        file="text",
        requirements=("tokenizers",),
        params=Settings().model_dump(),
    )


def load_predict(model: nn.Module, manifest: Manifest) -> Predict:
    """Return the function that answers rows of `{"text": …}` for this network, with a request's settings.

    An answer is `{"continuation": str, "tokens": [str, …], "log_probabilities": [float, …]}`: what the network
    writes after the text, or, with `score`, an empty continuation and the text's own tokens from the second
    on; each token with its log-probability in nats. An answer does not depend on the request's other rows. The
    text may be empty, and what the vocabulary lacks in it is read as `<unk>`.
    The function raises PedigreeError, for the whole request, when a setting or one row's text cannot be used.
    """
    tokenizer = tokens.load(LanguageFacts.model_validate(manifest.facts).tokenizer)
    model.eval()

    def predict(rows: list[dict[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        chosen = _settings(settings)
        texts = [_text(row, index) for index, row in enumerate(rows)]
        if chosen.score:
            return [_answer("", *score(model, tokenizer, text)) for text in texts]
        sampling = chosen.model_dump(exclude={"score"})
        written = [generate(model, tokenizer, text, **sampling) for text in texts]
        return [_answer(each.text, each.tokens, each.log_probabilities) for each in written]

    return predict


def _answer(continuation: str, pieces: list[str], log_probabilities: list[float]) -> dict[str, Any]:
    return {"continuation": continuation, "tokens": pieces, "log_probabilities": log_probabilities}


def _settings(given: Mapping[str, Any]) -> Settings:
    fields = Settings.model_fields
    problems = [
        f"{reprlib.repr(name)} is not one{nearest(str(name), fields) or ': leave it out'}"
        for name in given
        if name not in fields
    ]
    try:
        chosen = Settings.model_validate({name: given[name] for name in fields if name in given})
    except ValidationError as error:
        problems += [f"{e['loc'][0]} = {reprlib.repr(e['input'])}: {e['msg']}" for e in error.errors()]
    if problems:
        raise PedigreeError(f"the request's params: {'; '.join(problems)}")
    return chosen


def _text(row: Mapping[str, Any], index: int) -> str:
    """Return a row's text, with U+FFFD for each half of a character (a surrogate) that stands alone."""
    text = row.get("text")
    if not isinstance(text, str):
        raise PedigreeError(
            f"row {index}: the text cannot be used: expected a string in the column text and found "
            f"{type(text).__name__}; send another"
        )
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if (size := len(whole.encode())) > LARGEST:
        raise PedigreeError(
            f"row {index}: the text cannot be used: {size:,} bytes are over {LARGEST:,}; send it in parts"
        )
    return whole
