"""A question and a context in, the answer with its place out, or one sentence that says why not."""

import pytest
import torch

from components.contracts import Rejected
from components.errors import PedigreeError
from components.tasks.question_answering import serve
from components.tasks.question_answering.model import Reader, build_model
from tests.tasks.question_answering import tiny
from tests.tasks.question_answering.values import prepared, values

CONTEXT = "The cat is on the table. The fox is at home."
LONG = "It rains again and again. " * 40 + CONTEXT


def predict_with(folder, threshold):
    (folder / "raw").mkdir()
    tiny.write(folder / "raw")
    manifest = prepared(folder).manifest
    if threshold is None:
        manifest.facts["unanswerable"]["train"] = 0
    torch.manual_seed(0)
    model = build_model(values(), manifest)
    assert isinstance(model, Reader)
    if threshold is not None:
        model.threshold.fill_(threshold)
    return serve.load_predict(model, manifest, values()), serve.served(manifest, values())


@pytest.fixture(scope="module")
def predict(tmp_path_factory):
    return predict_with(tmp_path_factory.mktemp("data"), 1e3)[0]


@pytest.mark.parametrize("context", [CONTEXT, LONG, "é e\u0301 👩\u200d💻 \u2028 fox", "\r\n fox \0"])
def test_an_answer_stands_in_the_context_as_it_was_sent(predict, context):
    (answer,) = predict([{"question": "Where is the fox?", "context": context}], {})
    assert answer["answer"]
    assert context.startswith(answer["answer"], answer["start"])
    assert 0 < answer["score"] < 1
    assert answer["note"] == ""


def test_a_question_is_answered_as_it_is_alone_whatever_questions_are_beside_it(predict):
    rows = [{"question": q, "context": c} for q in ("Where is the fox?", "Where?") for c in (CONTEXT, LONG, "fox")]
    for row, answer in zip(rows, predict(rows * 7, {}), strict=False):
        (alone,) = predict([row], {})
        assert (answer["answer"], answer["start"]) == (alone["answer"], alone["start"])
        assert answer["score"] == pytest.approx(alone["score"], abs=1e-5)
        assert answer["no_answer"] == pytest.approx(alone["no_answer"], abs=1e-3)


def test_from_the_threshold_on_there_is_no_answer_and_without_threshold_always_one(tmp_path):
    row = {"question": "Where is the fox?", "context": CONTEXT}
    (tmp_path / "one").mkdir()
    predict, served = predict_with(tmp_path / "one", -1e3)
    (answer,) = predict([row], {})
    assert (answer["answer"], answer["start"]) == ("", -1)
    assert answer["no_answer"] > 0
    assert {*answer} == {*served.outputs}
    (tmp_path / "two").mkdir()
    predict, served = predict_with(tmp_path / "two", None)
    (always,) = predict([row], {})
    assert always["answer"]
    assert {*always} == {*served.outputs} == {"answer", "answers", "start", "score", "note"}


@pytest.mark.parametrize("context", [CONTEXT, LONG, "fox"])
def test_the_best_answers_come_in_order_each_text_once_and_the_first_is_the_answer(predict, context):
    rows = [{"question": question, "context": context} for question in ("Where is the fox?", "Where?")]
    for answer in predict(rows, {"best": 9}):
        several = answer["answers"]
        assert several[0] == {name: answer[name] for name in ("answer", "start", "score")}
        assert all(context.startswith(each["answer"], each["start"]) for each in several)
        assert len({each["answer"] for each in several}) == len(several) == (1 if context == "fox" else 9)
        scores = [each["score"] for each in several]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) < 1
    (one, _), (nine, _) = predict(rows, {}), predict(rows, {"best": 9})
    assert one["answers"] == one["answers"][:1]
    assert (one["answer"], one["start"]) == (nine["answer"], nine["start"])


def test_of_a_question_that_is_not_answered_it_is_known_what_the_answer_would_be(tmp_path):
    never, _ = predict_with(tmp_path, -1e3)
    (answer,) = never([{"question": "Where is the fox?", "context": CONTEXT}], {})
    (piece,) = answer["answers"]
    assert (answer["answer"], answer["score"]) == ("", piece["score"])
    assert CONTEXT.startswith(piece["answer"], piece["start"])


def test_a_setting_that_cannot_be_is_an_error_for_the_whole_request(predict):
    with pytest.raises(PedigreeError, match="the request's params: best = 0"):
        predict([{"question": "Where?", "context": CONTEXT}], {"best": 0})


def test_the_files_of_squads_scripts_have_answers_and_odds_by_id_or_else_by_place(tmp_path):
    _, served = predict_with(tmp_path, 0)
    entries = served.objects["squad"]
    assert entries("dev.json", {"id": "q1", "answer": "at home", "no_answer": -2.5}) == {
        "predictions.json": {"q1": "at home"},
        "null_odds.json": {"q1": -2.5},
    }
    assert entries("a.jsonl", {"line": 3, "id": None, "answer": ""}) == {"predictions.json": {"a.jsonl:3": ""}}
    assert entries("a.jsonl", {"line": 3, "id": 0, "answer": ""}) == {"predictions.json": {"0": ""}}


def test_of_a_question_that_is_too_long_the_beginning_is_read_and_the_answer_says_so(predict):
    long = "Where is the fox " * 4
    (answer,) = predict([{"question": long, "context": CONTEXT}], {})
    assert answer["note"] == "only the first 10 tokens of the question were read"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "Where?"}, "expected a string in the column context and found null; send another"),
        ({"question": 3, "context": "a"}, "expected a string in the column question and found int; send another"),
        ({"question": " ", "context": "a"}, "its question is empty; send another"),
        ({"question": "Where?", "context": "\n"}, "its context is empty; send another"),
        ({"question": "Where?", "context": "\ud800 a"}, "character 0 of its context is half of a surrogate pair"),
        (
            {"question": "Where?", "context": "x" * (2**20 + 1)},
            "its context of 1,048,577 characters is over 1,048,576: divide it; send another",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_rejected_and_the_others_are_answered(predict, row, reason):
    good = {"question": "Where is the fox?", "context": CONTEXT}
    first, rejected, last = predict([good, row, good], {})
    assert first == last
    assert isinstance(rejected, Rejected)
    assert rejected.reason.startswith(f"the question cannot be used: {reason}")
