"""Questions become windows; no context is in two splits, and what cannot be used is counted."""

import json
from pathlib import Path

import pytest

from components.contracts import Prepared
from components.errors import PedigreeError
from components.tasks.question_answering.prepare import QuestionFacts, load_split, questions_of_test
from components.text import wordpiece
from tests.tasks.question_answering import tiny
from tests.tasks.question_answering.values import prepared
from tests.text import bert_folders


@pytest.fixture
def raw(tmp_path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def write(file: Path, asked: list[tiny.Asked], title: str = "Days") -> None:
    file.write_text(json.dumps(tiny.squad(asked, title)))


def facts(found: Prepared) -> QuestionFacts:
    return QuestionFacts.model_validate(found.manifest.facts)


def test_the_answer_stands_in_one_window_at_least_and_is_given_back_by_its_positions(raw, tmp_path):
    tiny.write(raw)
    found = prepared(tmp_path)
    split, tested = load_split(found.folder, "test"), questions_of_test(found.folder)
    windows = facts(found).windows
    assert len(split) > len(tested)  # some contexts need two
    place = 0
    for number, each in enumerate(tested):
        texts = set()
        for window in windows.of(each.question, each.context).windows:
            row = {name: tensor[place].tolist() for name, tensor in split.dense.items()}
            assert split.ragged["token"][place].tolist() == window.ids
            assert (row["first"], row["question"]) == (window.first, number)
            if row["start"]:
                begin, end = window.place(row["start"], row["end"])
                texts.add(each.context[begin:end])
            place += 1
        assert texts == {answer.text for answer in each.answers}
    assert place == len(split)


def test_contexts_that_are_drawn_are_in_one_split_with_all_their_questions(raw, tmp_path):
    tiny.write(raw)
    found = prepared(tmp_path)
    assert facts(found).counts == {"test": 24, "val": 9, "train": 87}
    assert found.manifest.drawn == "24 of 120 questions, with all of their contexts"
    assert {each.context for each in questions_of_test(found.folder)} < {each.context for each in tiny.asked()}
    assert facts(found).unanswerable == {"test": 8, "val": 3, "train": 29}


def test_whole_articles_are_drawn_where_there_are_enough(raw, tmp_path):
    asked = [*tiny.asked()]
    data = [tiny.squad(asked[first : first + 6], f"Article {first}")["data"][0] for first in range(0, 120, 6)]
    for number, article in enumerate(data):
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                qa["id"] = f"{number}-{qa['id']}"
    (raw / "all.json").write_text(json.dumps({"data": data}))
    found = prepared(tmp_path)
    tested = questions_of_test(found.folder)
    titles = {each.title for each in tested}
    assert len(tested) == 6 * len(titles) == 24


def test_training_loses_the_questions_about_contexts_that_test_has_too(raw, tmp_path):
    asked = [*tiny.asked()]
    loud = [each._replace(context=each.context.upper() + "!", answer=each.answer.upper()) for each in asked[:6]]
    write(raw / "train.json", [*asked[:90], *asked[114:]])
    write(raw / "valid.json", asked[90:105])
    write(raw / "test.json", [*asked[105:], *loud])
    found = prepared(tmp_path, max_rejected=0.2)
    assert facts(found).counts == {"test": 21, "val": 15, "train": 84}
    reasons = {each.file: each.reason for each in found.manifest.rejected}
    assert len(reasons) == 12
    assert reasons["train.json:q0"] == "duplicate of the test text test.json:q15"
    assert reasons["train.json:q95"] == "duplicate of the test text test.json:q12"


def test_wrong_places_are_counted_in_the_manifest_and_stop_the_stage_where_they_are_too_many(raw, tmp_path):
    asked = [*tiny.asked()]
    asked[0] = asked[0]._replace(start=asked[0].start + 1)
    write(raw / "all.json", asked)
    found = prepared(tmp_path)
    (rejected,) = found.manifest.rejected
    assert rejected.file == "all.json:q0"
    assert rejected.reason.startswith(f"its answer '{asked[0].answer}' does not stand at answer_start ")
    (tmp_path / "prepared").rename(tmp_path / "first")
    with pytest.raises(
        PedigreeError, match=r"1 of 120 files cannot be used, more than .* 0\.001:\n  1 like all\.json:q0"
    ):
        prepared(tmp_path, max_rejected=0.001)


def test_a_long_context_has_many_windows_and_its_answer_is_in_few(raw, tmp_path):
    context = "The fox is at home. " + "Then it rains again. " * 2000
    asked = [*tiny.asked(), tiny.Asked(context, "Where is the fox?", "at home", 11)]
    write(raw / "train.json", asked)
    write(raw / "valid.json", [each._replace(context=f"{each.context} So.") for each in asked[:30]])
    write(raw / "test.json", [each._replace(context=f"{each.context} Yes.") for each in asked[:30]])
    found = prepared(tmp_path)
    split = load_split(found.folder, "train")
    own = split["question"] == 120
    assert int(own.sum()) > 500
    assert 1 <= int((split["start"][own] > 0).sum()) <= 2
    assert int(split.lengths.max()) <= 24


def test_answers_that_are_longer_than_a_window_are_counted_beside_all_results(raw, tmp_path):
    answer = "on the table in the old box under the bed " * 5
    write(
        raw / "questions.json", [*tiny.asked(), tiny.Asked(f"It is {answer}.", "Where is it?", answer.strip(), 6)]
    )
    assert (
        " have an answer that no window of prepare.longest (24) tokens holds whole"
        in prepared(tmp_path).manifest.note
    )


def test_the_tokenizer_of_a_bert_is_read_from_its_file_and_long_questions_are_noted(raw, tmp_path):
    tiny.write(raw)
    file = bert_folders.write(tmp_path / "bert") / "vocab.txt"
    found = prepared(tmp_path, longest_question=2, tokenizer={"from": str(file)})
    assert facts(found).windows.tokenizer.get_vocab() == wordpiece.load(file).get_vocab()
    assert "24 of 24 questions of test have more than prepare.longest_question (2) tokens" in found.manifest.note


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ([], r"has no question: add some$"),
        (
            [*tiny.asked(1)],
            r"3 questions for training are too few or too unequal to draw test from them: add contexts",
        ),
        (
            [each._replace(answer="") for each in tiny.asked()],
            r"has no question with an answer for test: add some",
        ),
        ([each._replace(start=99) for each in tiny.asked(3) if each.answer], r"6 of 6 files cannot be used"),
    ],
)
def test_too_few_questions_are_an_error_that_says_what_to_add(raw, tmp_path, asked, problem):
    write(raw / "all.json", asked)
    with pytest.raises(PedigreeError, match=problem):
        prepared(tmp_path)
