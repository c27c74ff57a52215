"""Evaluation says how good answers are, by which rules they have to be better, and what is wrong."""

import csv
import json

import numpy as np
import pytest
import torch

from components.contracts import Rejected
from components.errors import PedigreeError
from components.tasks.question_answering import evaluate, spans
from components.tasks.question_answering.model import Reader, build_model
from components.tasks.question_answering.prepare import load_split, questions_of_test
from components.tasks.question_answering.questions import Answer, Question
from components.tasks.question_answering.windows import NONE
from tests.tasks.question_answering import tiny
from tests.tasks.question_answering.values import prepared, values


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "raw").mkdir()
    tiny.write(folder / "raw")
    return prepared(folder)


def predictions(ready, wrong=()):
    """Return predictions that are right, but for the questions `wrong`, answered with the first token."""
    split = load_split(ready.folder, "test")
    found = torch.stack([split["start"], split["end"]], 1)
    has = split["start"] > NONE
    first = torch.stack([split["first"]] * 2, 1)
    found = torch.where(has[:, None], found, first)
    score = torch.where(has, 5.0, -5.0)
    for number in wrong:
        own = split["question"] == number
        found[own], score[own] = first[own], 7.0
    return [
        {
            "found": found,
            "score": score,
            "null": torch.zeros(len(split)),
            "normaliser": torch.full((len(split),), 8.0),
            "threshold": torch.zeros(len(split), dtype=torch.float64),
            "start": split["start"],
            "end": split["end"],
            "question": split["question"],
        }
    ]


def measured(ready, folder, wrong=()):
    for name in ("plots", "examples"):
        (folder / name).mkdir()
    model = build_model(values(), ready.manifest)
    return evaluate.evaluate(model, predictions(ready, wrong), ready, folder, values())


def test_right_answers_score_one_and_no_answer_is_right_where_there_is_none(ready, tmp_path):
    metrics = measured(ready, tmp_path)
    for name in ("f1", "exact_match", "f1_with_answer", "no_answer_auc", "no_answer_precision", "no_answer_recall"):
        assert metrics[name] == 1, name
    assert metrics["f1/where"] == metrics["f1/no answer"] == metrics["exact_match/1-4 words"] == 1
    assert metrics["f1_of_no_answer"] == pytest.approx(1 / 3)
    assert metrics["f1_gain"] == pytest.approx(1 - max(metrics[f"f1_of_{rule}"] for rule in evaluate._RULES))
    for name in ("by_group", "reliability", "no_answer"):
        assert (tmp_path / "plots" / f"{name}.png").stat().st_size > 5_000


def test_wrong_answers_are_listed_with_the_most_confident_first_and_written_as_squads_scripts_read_them(
    ready, tmp_path
):
    tested = questions_of_test(ready.folder)
    impossible = next(number for number, each in enumerate(tested) if not each.answers)
    metrics = measured(ready, tmp_path, wrong=[impossible])
    assert metrics["exact_match"] == pytest.approx(23 / 24)
    assert metrics["no_answer_recall"] == pytest.approx(7 / 8)
    (worst,) = json.loads((tmp_path / "examples" / "worst.json").read_text())
    assert worst["at"] == tested[impossible].at
    assert worst["context"] == tested[impossible].context
    assert worst["context"].startswith(worst["answer"], worst["start"])
    assert worst["right"] == ""
    with (tmp_path / "examples" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    given = json.loads((tmp_path / "examples" / "squad.json").read_text())
    assert given == {row["at"].partition(":")[2]: row["answer"] for row in rows}
    assert len(given) == 24


def test_outcomes_of_answers_are_those_of_predictions_and_a_rejected_question_is_a_wrong_one(ready):
    table = evaluate.outcomes(predictions(ready), ready, values())
    answers = [
        {"answer": each.answers[0].text if each.answers else "", "no_answer": 5.0 if not each.answers else -5.0}
        for each in questions_of_test(ready.folder)
    ]
    again = evaluate.outcomes_from(answers, ready)
    for name, column in table.columns.items():
        np.testing.assert_allclose(again.columns[name], column)
    assert again.groups == table.groups
    assert {*table.groups["question"]} == {"where"}
    assert {*table.groups["answer"]} == {"1-4 words", "no answer"}
    rejected = evaluate.outcomes_from([Rejected("why")] * 24, ready)
    assert not rejected.columns["f1"].any(), "also where no answer would be right"
    assert not rejected.columns["exact"].any()
    without = evaluate.outcomes_from([{"answer": "at home"}] * 24, ready)
    assert np.isfinite(without.columns["no_answer"]).all()
    with pytest.raises(PedigreeError, match=r"no column 'answer' but text$"):
        evaluate.outcomes_from([{"text": "x"}] * 24, ready)


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("In what year?", "what"),
        ("How many?", "how"),
        ("Name the king.", "other"),
        ("WHO?", "who"),
        ("Whatever", "other"),
    ],
)
def test_a_question_belongs_to_its_first_question_word(question, word):
    assert evaluate._word(question) == word


def test_rules_answer_with_the_first_sentence_or_with_the_one_that_has_most_words_of_the_question():
    context = "It rains. The old fox is at home!\nA dog: away"
    question = Question("x", "", "Where is the fox?", context, (Answer("at home", 26),))
    assert evaluate._by_rule(question) == {
        "first_sentence": "It rains.",
        "closest_sentence": "The old fox is at home!",
        "no_answer": "",
    }


def test_a_network_that_always_answers_is_evaluated_without_its_threshold(ready, tmp_path):
    for name in ("plots", "examples"):
        (tmp_path / name).mkdir()
    (given,) = predictions(ready)
    del given[spans.THRESHOLD]
    facts = ready.manifest.facts | {"unanswerable": {"train": 0, "val": 0, "test": 8}}
    manifest = ready.manifest.model_copy(update={"facts": facts})
    always = type(ready)(ready.folder, manifest)
    model = build_model(values(), manifest)
    assert isinstance(model, Reader)
    metrics = evaluate.evaluate(model, [given], always, tmp_path, values())
    assert metrics["f1/no answer"] == metrics["no_answer_recall"] == 0
    assert metrics["f1_with_answer"] == 1
    assert not (tmp_path / "plots" / "no_answer.png").exists()
