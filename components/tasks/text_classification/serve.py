"""The served classifier: a text in, or two, and a label with its probability out, or several labels."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from components.classification import decision
from components.classification.answers import answers, decided
from components.contracts import NOTE, Kind, Manifest, Predict, Prepared, Row, Served
from components.datasets.ingest import Unusable, named
from components.requests import answer_rows
from components.tasks.text_classification.params import TextParams
from components.tasks.text_classification.prepare import TextFacts, texts_of_test
from components.text import samples, tokens
from components.text.lines import expect_usable
from components.text.samples import Encoded

TOGETHER = 64
"""Texts that are answered at once."""
LONGEST = 2**20
"""Most characters of a text; as in preparation, a line may have so many bytes."""
TEXT, PAIR = "text", "pair"
"""Columns of a request."""


def served(manifest: Manifest, params: TextParams) -> Served:
    """Describe requests and answers; `probabilities` contains every class."""
    facts = TextFacts.model_validate(manifest.facts)
    outputs: dict[str, Kind] = {"label": "string", "probability": "double", "probabilities": "map"}
    if facts.several:
        outputs = {"labels": "strings", "probabilities": "map", "thresholds": "map"}
    example = {TEXT: "Return the sum of all elements.", **({PAIR: "Add the elements."} if facts.pair else {})}
    return Served(
        inputs=dict.fromkeys(example, "string"),
        outputs={**outputs, NOTE: "string"},
        example=dict(example),
        file=None if facts.pair else TEXT,
        lines=None if facts.pair else {},
        columns={TEXT: params.prepare.text, **({PAIR: params.prepare.pair} if facts.pair else {})},
        header=params.prepare.header,
        requirements=("tokenizers",),
    )


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Yield the test texts."""
    yield from (dict(zip((TEXT, PAIR), each, strict=False)) for each in texts_of_test(prepared.folder))


def load_predict(model: nn.Module, manifest: Manifest, params: TextParams) -> Predict:
    """Return the function that answers rows of `{"text": …}`, or of `{"text": …, "pair": …}`.

    An answer is `{"label": str, "probability": float, "probabilities": {class: float}, "note": str}`; as in
    evaluation, the first of several equal logits wins. Where a text can have several labels, an answer is
    `{"labels": [str], "probabilities": {class: float}, "thresholds": {class: float}, "note": str}`. The note says
    if a text has more tokens than are read.

    White space at the ends of a text is left out, as in preparation.
    """
    facts = TextFacts.model_validate(manifest.facts)
    tokenizer = tokens.load(facts.tokenizer)
    model.eval()
    device = next(model.parameters()).device

    def read(row: Row) -> Encoded:
        columns = (TEXT, PAIR) if facts.pair else (TEXT,)
        (found,) = samples.encoded(tokenizer, [[_text(row, column) for column in columns]], facts.longest)
        return found

    @torch.inference_mode()
    def answer(inputs: list[Encoded]) -> list[Row]:
        token = pad_sequence([torch.tensor(each.ids) for each in inputs], batch_first=True).to(device)
        length, first = (
            torch.tensor(counts, device=device)
            for counts in ([len(each.ids) for each in inputs], [each.first for each in inputs])
        )
        logits: Tensor = model(token, length, first).cpu()
        last = decision.of(model)
        if last is None:
            found = answers(logits, facts.classes, "label")
        else:
            found = decided(logits, facts.classes, None, last.threshold.cpu())
        cut = f"only the first {facts.longest} tokens were read"
        return [each | {NOTE: cut if text.cut else ""} for each, text in zip(found, inputs, strict=True)]

    return lambda rows, settings: answer_rows(rows, read, answer, "text", TOGETHER)


def _text(row: Row, column: str) -> str:
    """Return a row's text without white space at its ends."""
    text = row.get(column)
    if not isinstance(text, str):
        raise Unusable(f"expected a string in the column {column} and found {named(text)}")
    if len(text) > LONGEST:
        raise Unusable(f"{len(text):,} characters are over {LONGEST:,}")
    return expect_usable(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
