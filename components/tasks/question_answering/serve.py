"""The served reader: a question and a context in; the answer, its place and its score out."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from components import requests
from components.contracts import ID, NOTE, Batch, Kind, Manifest, Predict, Prepared, Rejected, Row, Served
from components.datasets.ingest import Unusable, named
from components.tasks.question_answering import questions, spans
from components.tasks.question_answering.model import Reader
from components.tasks.question_answering.params import QuestionParams
from components.tasks.question_answering.prepare import QuestionFacts, questions_of_test
from components.tasks.question_answering.windows import Asked

TOGETHER = 32
"""Questions that are answered at once, and windows that the network reads at once."""


class Settings(BaseModel):
    """The params of a request, with their defaults."""

    model_config = ConfigDict(frozen=True, strict=True)

    best: int = Field(1, ge=1, le=100, description="Most answers to a question")


class _Read(NamedTuple):
    context: str
    asked: Asked


def served(manifest: Manifest, params: QuestionParams) -> Served:
    """Describe requests and answers."""
    facts = QuestionFacts.model_validate(manifest.facts)
    outputs: dict[str, Kind] = {"answer": "string", "start": "long", "score": "double", "answers": "records"}
    if facts.abstains:
        outputs["no_answer"] = "double"
    return Served(
        inputs={"question": "string", "context": "string"},
        outputs={**outputs, NOTE: "string"},
        example={
            "question": "What type is axis?",
            "context": "a : array_like\n    Input array.\naxis : int, optional\n    Axis to sum over.",
        },
        requirements=("tokenizers",),
        params=Settings().model_dump(),
        columns={"question": "question", "context": "context"},
        readers={questions.JSON: questions.requests},
        objects={"squad": _squad},
    )


def _squad(file: str, answer: Row) -> Mapping[str, Row]:
    """Return an answer's entries in the files that SQuAD's official scripts read, by id.

    Without an id, the answer's place stands for it.
    """
    name = f"{file}:{answer['line']}" if answer.get(ID) in (None, "") else str(answer[ID])
    odds = {"null_odds.json": {name: answer["no_answer"]}} if "no_answer" in answer else {}
    return {"predictions.json": {name: answer["answer"]}, **odds}


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Yield the test questions with their contexts."""
    yield from ({"question": each.question, "context": each.context} for each in questions_of_test(prepared.folder))


def load_predict(model: nn.Module, manifest: Manifest, params: QuestionParams) -> Predict:
    """Return the function that answers rows of `{"question": …, "context": …}`.

    An answer is `{"answer": str, "start": int, "score": float, "answers": [{"answer": str, "start": int, "score":
    float}, …], "no_answer": float, "note": str}`: a piece of the context, the place of its first character (a
    Unicode code point), its probability among all pieces, up to `best` pieces, the best first, and by how much the
    score of no answer exceeds the answer's, less the threshold. If that is above 0, the answer is empty and start
    -1, and `answers` has what would be the answer. A network that was trained only on questions with answers always
    answers, without `no_answer`. The note says if a question has more tokens than are read.

    The function raises PedigreeError for the entire request if a setting is invalid.
    """
    assert isinstance(model, Reader), "it carries the threshold"
    windows = QuestionFacts.model_validate(manifest.facts).windows
    model.eval()
    device = next(model.parameters()).device
    longest = params.evaluate.longest_answer

    def read(row: Row) -> _Read:
        question, context = (_text(row, column) for column in ("question", "context"))
        return _Read(context, windows.of(question.strip(), context))

    @torch.inference_mode()
    def best(inputs: list[_Read], count: int) -> Batch:
        own = [window for each in inputs for window in each.asked.windows]
        found = []
        for begin in range(0, len(own), TOGETHER):
            some = own[begin : begin + TOGETHER]
            token = pad_sequence([torch.tensor(each.ids) for each in some], batch_first=True).to(device)
            length = torch.tensor([len(each.ids) for each in some], device=device)
            first = torch.tensor([each.first for each in some], device=device)
            logits = model(token, length, first)
            both = spans.best(logits, longest) | spans.several(logits, longest, count)
            found.append({name: each.cpu() for name, each in both.items()})
        return spans.joined(found)

    def answer(chosen: Settings, inputs: list[_Read]) -> list[Row]:
        question = torch.tensor([n for n, each in enumerate(inputs) for _ in each.asked.windows])
        contexts, asked = [each.context for each in inputs], [each.asked for each in inputs]
        read = best(inputs, chosen.best)
        given = spans.answers(read, question, contexts, asked, model.threshold)
        several = spans.pieces(read, question, contexts, asked, chosen.best)
        cut = f"only the first {windows.size.question} tokens of the question were read"
        return [
            {"answer": each.text, "start": each.start, "score": each.score}
            | {"answers": [{"answer": piece.text, "start": piece.start, "score": piece.score} for piece in own]}
            | ({} if model.threshold is None else {"no_answer": each.no_answer})
            | {NOTE: cut if one.asked.cut else ""}
            for each, own, one in zip(given, several, inputs, strict=True)
        ]

    def predict(rows: list[Row], settings: Mapping[str, Any]) -> list[Row | Rejected]:
        answered = partial(answer, requests.settings(Settings, settings))
        return requests.answer_rows(rows, read, answered, "question", TOGETHER)

    return predict


def _text(row: Row, column: str) -> str:
    """Return a row's text as it is."""
    text = row.get(column)
    if not isinstance(text, str):
        raise Unusable(f"expected a string in the column {column} and found {named(text)}")
    return questions.usable(text, column)
