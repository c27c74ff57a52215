"""The served language model: a text in, its continuation or its tokens' log-probabilities out."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from components.contracts import Manifest, Predict, Prepared, Rejected, Row, Served, Sources
from components.datasets.ingest import Unusable, named, not_pointer
from components.display import brief, first
from components.errors import PedigreeError
from components.params import nearest
from components.requests import answer_rows
from components.tasks.language_model.params import LanguageParams
from components.tasks.language_model.prepare import LanguageFacts, load_split
from components.tasks.language_model.train import SEGMENT, WARM_UP
from components.text import tokens
from components.text.corpus import HEAD
from components.text.generate import generate, score

ROW_PARAMS = {"score": True}
"""Parameters of the requests with `rows`."""
LARGEST = 2**20
"""Maximum size of a row's text in bytes of UTF-8."""


class Settings(BaseModel):
    """The params of a request, with their defaults."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    score: bool = Field(
        False, description="Return the log-probabilities of the text's own tokens, and generate none"
    )
    temperature: float = Field(1.0, ge=0, description="Divides the logits; 0 takes the likeliest token")
    top_k: int = Field(0, ge=0, lt=2**31, description="Sample from this many likeliest tokens; 0 means all")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample from the fewest tokens with this probability")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the sampling, the same for each row")
    stop: str = Field("", max_length=1000, description="The continuation ends before this text; empty means none")
    max_length: int = Field(100, ge=1, le=10_000, description="Maximum number of tokens of a continuation")


def served(manifest: Manifest, params: LanguageParams) -> Served:
    """Describe requests and answers; the params of a request are those of `Settings`."""
    return Served(
        inputs={"text": "string"},
        outputs={"continuation": "string", "tokens": "strings", "log_probabilities": "doubles"},
        example={"text": "Return the"},
        file="text",
        requirements=("tokenizers",),
        params=Settings().model_dump(),
    )


def passages(tokens_: int) -> Iterator[tuple[int, int, int]]:
    """Divide a text as evaluation does: yield where each passage's warm-up begins, and where it begins and ends.

    Every token except the first belongs to one passage.
    """
    for start in range(1, tokens_, SEGMENT):
        yield max(0, start - 1 - WARM_UP), start, min(start + SEGMENT, tokens_)


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Yield the passages of the test text, each with its warm-up."""
    tokenizer = tokens.load(LanguageFacts.model_validate(prepared.manifest.facts).tokenizer)
    ids = load_split(prepared.folder, "test")["tokens"].numpy()
    for warm_up, _, stop in passages(len(ids)):
        yield {"text": tokens.written(tokenizer, ids[warm_up:stop].tolist())}


def load_predict(model: nn.Module, manifest: Manifest, params: LanguageParams, sources: Sources) -> Predict:
    """Return the function that answers rows of `{"text": …}` with a request's settings.

    An answer is `{"continuation": str, "tokens": [str, …], "log_probabilities": [float, …]}`: the generated
    continuation, or, with `score`, an empty continuation and the text's own tokens from the second on; each token
    has its log-probability in nats. An answer does not depend on other rows. The text may be empty; characters or
    words that are not in the vocabulary are read as `<unk>`.
    The function raises PedigreeError for the entire request if a setting is invalid.
    """
    tokenizer = tokens.load(LanguageFacts.model_validate(manifest.facts).tokenizer)
    model.eval()

    def answer(chosen: Settings, texts: list[str]) -> list[Row]:
        if chosen.score:
            return [_answer("", *score(model, tokenizer, text)) for text in texts]
        sampling = chosen.model_dump(exclude={"score"})
        written = [generate(model, tokenizer, text, **sampling) for text in texts]
        return [_answer(each.text, each.tokens, each.log_probabilities) for each in written]

    def predict(rows: list[Row], settings: Mapping[str, Any]) -> list[Row | Rejected]:
        return answer_rows(rows, _text, partial(answer, _settings(settings)), "text", 1)

    return predict


def _answer(continuation: str, pieces: list[str], log_probabilities: list[float]) -> dict[str, Any]:
    return {"continuation": continuation, "tokens": pieces, "log_probabilities": log_probabilities}


def _settings(given: Mapping[str, Any]) -> Settings:
    fields = Settings.model_fields
    problems = [
        f"{brief(name)} is unknown{nearest(str(name), fields) or ': leave it out'}"
        for name in given
        if name not in fields
    ]
    try:
        chosen = Settings.model_validate({name: given[name] for name in fields if name in given})
    except ValidationError as error:
        problems += [f"{e['loc'][0]} = {brief(e['input'])}: {e['msg']}" for e in error.errors()]
    if problems:
        raise PedigreeError(f"the request's params: {'; '.join(first(problems))}")
    return chosen


def _text(row: Row) -> str:
    """Return a row's text, with lone surrogates replaced by U+FFFD."""
    text = row.get("text")
    if not isinstance(text, str):
        raise Unusable(f"expected a string in the column text and found {named(text)}")
    valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if (size := len(valid.encode())) > LARGEST:
        raise Unusable(f"{size:,} bytes are over {LARGEST:,}; send it in parts")
    not_pointer(valid[:HEAD].encode())
    return valid
