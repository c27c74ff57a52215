"""The served reader: a question and a context in; the answer, its place and its score out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from components.contracts import NOTE, Batch, Kind, Manifest, Predict, Prepared, Row, Served
from components.datasets.ingest import Unusable, named
from components.requests import answer_rows
from components.tasks.question_answering import questions, spans
from components.tasks.question_answering.model import Reader
from components.tasks.question_answering.params import QuestionParams
from components.tasks.question_answering.prepare import QuestionFacts, questions_of_test
from components.tasks.question_answering.windows import Asked

TOGETHER = 32
"""Questions that are answered at once, and windows that the network reads at once."""


class _Read(NamedTuple):
    context: str
    asked: Asked


def served(manifest: Manifest, params: QuestionParams) -> Served:
    """Describe requests and answers."""
    facts = QuestionFacts.model_validate(manifest.facts)
    outputs: dict[str, Kind] = {"answer": "string", "start": "long", "score": "double"}
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
    )


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Yield the test questions with their contexts."""
    yield from ({"question": each.question, "context": each.context} for each in questions_of_test(prepared.folder))


def load_predict(model: nn.Module, manifest: Manifest, params: QuestionParams) -> Predict:
    """Return the function that answers rows of `{"question": …, "context": …}`.

    An answer is `{"answer": str, "start": int, "score": float, "no_answer": float, "note": str}`: a piece of the
    context, the place of its first character (a Unicode code point), its probability among all pieces, and by how
    much the score of no answer exceeds the answer's, less the threshold. If that is above 0, the answer is empty
    and start -1. A network that was trained only on questions with answers always answers, without `no_answer`.
    The note says if a question has more tokens than are read.
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
    def best(inputs: list[_Read]) -> Batch:
        own = [window for each in inputs for window in each.asked.windows]
        found = []
        for begin in range(0, len(own), TOGETHER):
            some = own[begin : begin + TOGETHER]
            token = pad_sequence([torch.tensor(each.ids) for each in some], batch_first=True).to(device)
            length = torch.tensor([len(each.ids) for each in some], device=device)
            first = torch.tensor([each.first for each in some], device=device)
            found.append(
                {name: each.cpu() for name, each in spans.best(model(token, length, first), longest).items()}
            )
        return spans.joined(found)

    def answer(inputs: list[_Read]) -> list[Row]:
        question = torch.tensor([n for n, each in enumerate(inputs) for _ in each.asked.windows])
        given = spans.answers(
            best(inputs),
            question,
            [each.context for each in inputs],
            [each.asked for each in inputs],
            model.threshold,
        )
        cut = f"only the first {windows.size.question} tokens of the question were read"
        return [
            {"answer": each.text, "start": each.start, "score": each.score}
            | ({} if model.threshold is None else {"no_answer": each.no_answer})
            | {NOTE: cut if one.asked.cut else ""}
            for each, one in zip(given, inputs, strict=True)
        ]

    return lambda rows, settings: answer_rows(rows, read, answer, "question", TOGETHER)


def _text(row: Row, column: str) -> str:
    """Return a row's text as it is."""
    text = row.get(column)
    if not isinstance(text, str):
        raise Unusable(f"expected a string in the column {column} and found {named(text)}")
    return questions.usable(text, column)
