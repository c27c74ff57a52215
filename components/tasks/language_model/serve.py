"""The served language model: a text in, its continuation or its log-probability out."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer
from torch import nn

from components import requests
from components.contracts import NOTE, Manifest, Predict, Prepared, Rejected, Row, Served
from components.datasets.ingest import Unusable, named, not_pointer
from components.display import brief
from components.scores import exponential
from components.tasks.language_model.params import LanguageParams
from components.tasks.language_model.prepare import LanguageFacts, load_split
from components.tasks.language_model.train import SEGMENT, WARM_UP
from components.text import tokens
from components.text.corpus import HEAD
from components.text.generate import generate, score

ROW_PARAMS = {"score": True, "tokens": True}
"""Parameters of the requests with `rows`."""
SHOWN = 5
"""Most unknown words or characters that a note names."""
LARGEST = 2**20
"""Maximum size of a row's text in bytes of UTF-8."""


class Settings(BaseModel):
    """The params of a request, with their defaults."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    score: bool = Field(False, description="Return how probable the text is, and generate none")
    tokens: bool = Field(False, description="With score: also return each token and its log-probability")
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
        outputs={
            "continuation": "string",
            "log_probability": "double",
            "bits_per_character": "double",
            "perplexity": "double",
            "tokens": "strings",
            "log_probabilities": "doubles",
            NOTE: "string",
        },
        example={"text": "Return the"},
        file="text",
        lines={"score": True, "tokens": False},
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


def load_predict(model: nn.Module, manifest: Manifest, params: LanguageParams) -> Predict:
    """Return the function that answers rows of `{"text": …}` with a request's settings.

    An answer is `{"continuation": str, "tokens": [str, …], "log_probabilities": [float, …]}`: the generated
    continuation, and each of its tokens with its log-probability in nats. With `score` it is `{"log_probability":
    float, "bits_per_character": float, "perplexity": float}`: the sum over all of the text's tokens in nats, the
    same in bits divided by its characters, and the exponential of the tokens' mean. The first token is scored as
    the first of a line. An empty text has 0, 0 and 1. With `tokens`, the text's own tokens are added.

    The column `note` names the characters or words that the vocabulary lacks, which are read as `<unk>`. An answer
    does not depend on other rows. The text may be empty.
    The function raises PedigreeError for the entire request if a setting is invalid.
    """
    facts = LanguageFacts.model_validate(manifest.facts)
    tokenizer = tokens.load(facts.tokenizer)
    model.eval()

    def answer(chosen: Settings, texts: list[str]) -> list[Row]:
        found = (_scored if chosen.score else _continued)(model, tokenizer, chosen, texts)
        return [each | {NOTE: _note(tokenizer, facts.kind, text)} for each, text in zip(found, texts, strict=True)]

    def predict(rows: list[Row], settings: Mapping[str, Any]) -> list[Row | Rejected]:
        return requests.answer_rows(rows, _text, partial(answer, requests.settings(Settings, settings)), "text", 1)

    return predict


def _scored(model: nn.Module, tokenizer: Tokenizer, chosen: Settings, texts: list[str]) -> Iterator[Row]:
    for text in texts:
        pieces, log_probabilities = score(model, tokenizer, text)
        total = math.fsum(log_probabilities)
        nats = abs(total)  # not -0.0 for an empty text
        yield {
            "log_probability": total,
            "bits_per_character": nats / math.log(2) / max(len(text), 1),
            "perplexity": exponential(nats / max(len(pieces), 1)),
            **({"tokens": pieces, "log_probabilities": log_probabilities} if chosen.tokens else {}),
        }


def _continued(model: nn.Module, tokenizer: Tokenizer, chosen: Settings, texts: list[str]) -> Iterator[Row]:
    sampling = chosen.model_dump(exclude={"score", "tokens"})
    for text in texts:
        written = generate(model, tokenizer, text, **sampling)
        yield {
            "continuation": written.text,
            "tokens": written.tokens,
            "log_probabilities": written.log_probabilities,
        }


def _note(tokenizer: Tokenizer, kind: str, text: str) -> str:
    """Return which parts of a text the vocabulary lacks, or an empty string."""
    unknown = tokens.unknown(tokenizer, text)
    if not unknown:
        return ""
    what = ("character" if kind == "char" else "word") + (" is" if len(unknown) == 1 else "s are")
    shown = ", ".join([*map(brief, unknown[:SHOWN]), *(["…"] if len(unknown) > SHOWN else [])])
    return f"{len(unknown)} {what} not in the model's vocabulary: {shown}"


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
