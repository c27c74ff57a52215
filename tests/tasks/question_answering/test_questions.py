"""Questions are read from SQuAD's format and from JSON Lines, and what cannot be used is said in one sentence."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from components.contracts import Rejected
from components.errors import PedigreeError
from components.tasks.question_answering import questions
from components.tasks.question_answering.questions import Answer, Questions
from tests.tasks.question_answering.values import values

CONTEXT = "The fox is at home 🦊 in Köln."


def read(raw: Path) -> Questions:
    return questions.read(raw, values().prepare)


def reasons(raw: Path) -> dict[str, str]:
    return {each.file: each.reason for each in read(raw).rejected}


def squad(*qas: dict[str, Any], context: Any = CONTEXT) -> str:
    return json.dumps({"data": [{"title": "T", "paragraphs": [{"context": context, "qas": qas}]}]})


def qa(text: Any, start: Any, **more: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "Where is the fox?", "answers": [{"text": text, "answer_start": start}]} | more


def test_both_versions_of_squad_and_both_forms_of_json_lines_give_the_same_questions(tmp_path):
    (tmp_path / "train.json").write_text(squad(qa("at home", 11), qa("home", 14, id=2)))
    nothing = {"id": "q3", "question": "Why?", "is_impossible": True, "answers": [], "plausible_answers": [{}]}
    (tmp_path / "valid.json").write_text(squad(nothing))
    row = {"context": CONTEXT, "question": "Where is the fox?"}
    columns = {"text": ["at home", "Köln"], "answer_start": [11, 24]}
    listed = [{"text": "at home", "start": 11}, {"text": "Köln", "answer_start": 24}]
    lines = [row | {"answers": columns}, row | {"answers": listed}, row | {"answers": []}]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read(tmp_path)
    assert not found.rejected
    assert [(each.at, each.answers) for each in found.splits["train"]] == [
        ("train.json:q1", (Answer("at home", 11),)),
        ("train.json:2", (Answer("home", 14),)),
    ]
    assert [(each.at, each.answers) for each in found.splits["val"]] == [("valid.json:q3", ())]
    both = (Answer("at home", 11), Answer("Köln", 24))
    assert [(each.at, each.answers) for each in found.splits["test"]] == [
        ("test.jsonl:1", both),
        ("test.jsonl:2", both),
        ("test.jsonl:3", ()),
    ]
    assert found.total == 6


def test_of_several_places_of_a_misplaced_answer_the_nearest_is_named(tmp_path):
    context = "Paris is big. I like Paris. We love Paris."
    (tmp_path / "train.json").write_text(squad(qa("Paris", 22), qa("Paris", 20), context=context))
    assert [each.reason for each in read(tmp_path).rejected] == [
        "its answer 'Paris' does not stand at answer_start 22 but at 21",
        "its answer 'Paris' does not stand at answer_start 20 but at 21",
    ]


def test_of_several_answers_the_one_that_most_people_gave_is_the_commonest_and_else_the_first(tmp_path):
    several = qa("at home", 11)
    several["answers"] += [{"text": "home", "answer_start": 14}, {"text": "home", "answer_start": 14}]
    (tmp_path / "train.json").write_text(squad(several))
    (question,) = read(tmp_path).splits["train"]
    assert question.commonest == Answer("home", 14)
    assert question._replace(answers=question.answers[:2]).commonest == Answer("at home", 11)


@pytest.mark.parametrize(
    ("text", "start", "reason"),
    [
        ("home", 13, "its answer 'home' does not stand at answer_start 13 but at 14"),
        ("home", -1, "its answer 'home' does not stand at answer_start -1 but at 14"),
        ("home", 10**30, f"its answer 'home' does not stand at answer_start {10**30} but at 14"),
        ("Köln", 27, "its answer 'Köln' does not stand at answer_start 27 but at 24, and this counts bytes"),
        (
            "Köln",
            25,
            "its answer 'Köln' does not stand at answer_start 25 but at 24, and this counts units of UTF-16",
        ),
        ("the moon", 3, "its context does not contain the answer 'the moon'"),
        (
            "Ko\u0308ln",
            24,
            "its context has the answer 'Ko\u0308ln' in another form of Unicode: write both in one form, such as "
            "NFC",
        ),
        ("home", None, "one of its answers has no number 'answer_start'"),
        ("home", True, "one of its answers has no number 'answer_start'"),
        ("home", "14", "one of its answers has no number 'answer_start'"),
        (" ", 3, "its answer is empty"),
        ("\u200b", 3, "its answer is empty"),
        (None, 3, "it has no 'answer'"),
        (["home"], 14, "its answer is no text but \"['home']\""),
        ("home\ud83e", 14, "character 4 of its answer is half of a surrogate pair"),
    ],
)
def test_an_answer_that_does_not_stand_at_its_place_is_rejected_with_the_file_and_its_id(
    tmp_path, text, start, reason
):
    (tmp_path / "train.json").write_text(squad(qa(text, start), qa("home", 14, id="good")))
    assert reasons(tmp_path) == {"train.json:q1": reason}
    assert [each.at for each in read(tmp_path).splits["train"]] == ["train.json:good"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": " \n"}, "its question is empty"),
        ({"question": None}, "it has no 'question'"),
        ({"question": 3}, "its question is no text but '3'"),
        ({"answers": None}, "it has no list 'answers', which is empty if the context does not answer the question"),
        ({"answers": ["home"]}, "one of its answers is no JSON object"),
    ],
)
def test_a_question_that_lacks_something_is_rejected_with_what_it_lacks(tmp_path, changes, reason):
    (tmp_path / "train.json").write_text(squad(qa("home", 14, **changes)))
    assert reasons(tmp_path) == {"train.json:q1": reason}


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ("", "its context is empty"),
        ("\u2028\t", "its context is empty"),
        (None, "it has no 'context'"),
        ("caf\ufffd", "U+FFFD in its context stands for characters that were lost when the text was converted"),
        ("x" * 2**21, "its context of 2,097,152 characters is over 1,048,576: divide it"),
    ],
)
def test_a_context_that_cannot_be_used_is_rejected(tmp_path, context, reason):
    (tmp_path / "train.json").write_text(squad(qa("home", 14), context=context))
    assert reasons(tmp_path) == {"train.json:q1": reason}


def test_places_count_code_points_and_white_space_and_line_ends_as_they_are(tmp_path):
    context = "\ufeff \r\n👩\u200d💻 e\u0301t\u00e9\u2028end"
    place = context.index("e\u0301t")
    (tmp_path / "train.json").write_text(squad(qa("e\u0301t\u00e9", place), context=context), encoding="utf-8")
    (question,) = read(tmp_path).splits["train"]
    assert question.context == context
    assert question.answers == (Answer("e\u0301t\u00e9", place),)


def test_two_questions_of_one_id_are_told_apart_from_a_missing_id(tmp_path):
    nameless = {key: value for key, value in qa("home", 14).items() if key != "id"}
    (tmp_path / "train.json").write_text(squad(qa("home", 14), qa("home", 14), nameless, 3))
    assert reasons(tmp_path) == {
        "train.json:q1": "another question of the file has the same id",
        "train.json:4": "not a JSON object",
    }
    assert [each.at for each in read(tmp_path).splits["train"]] == ["train.json:q1", "train.json:3"]


def test_the_questions_of_a_file_are_asked_by_their_ids_without_their_answers(tmp_path):
    nameless = {"question": "Why?"}
    content = squad(qa("at home", 3), nameless, qa("home", 14), 3, qa("home", 14, id="a\tb", question=None))
    (tmp_path / "dev.json.gz").write_bytes(gzip.compress(content.encode()))
    asked = {"question": "Where is the fox?", "context": CONTEXT}
    assert [*questions.requests(tmp_path / "dev.json.gz")] == [
        ("q1", asked),
        ("2", {"question": "Why?", "context": CONTEXT}),
        ("q1", Rejected("another question of the file has the same id")),
        ("4", Rejected("not a JSON object")),
        ("a\tb", {"question": None, "context": CONTEXT}),
    ]
    (tmp_path / "dev.json").write_text('{"data": {}}')
    with pytest.raises(PedigreeError, match=r"^/.*/dev\.json is not in SQuAD's format, as it has no list 'data'"):
        next(questions.requests(tmp_path / "dev.json"))


@pytest.mark.parametrize("word", ["NA", "null", "nan"])
def test_no_word_is_a_missing_answer(tmp_path, word):
    row = {"question": f"What is {word}?", "context": f"It is {word}.", "answers": [{"text": word, "start": 6}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    assert [each.answers for each in read(tmp_path).splits["train"]] == [(Answer(word, 6),)]


def test_a_byte_order_mark_and_gzip_are_no_matter(tmp_path):
    content = b"\xef\xbb\xbf" + squad(qa("home", 14)).encode()
    (tmp_path / "train.json.gz").write_bytes(gzip.compress(content))
    assert len(read(tmp_path).splits["train"]) == 1


def test_lines_that_cannot_be_used_are_rejected_with_their_number_and_a_line_of_many_megabytes_too(tmp_path):
    good = json.dumps({"context": CONTEXT, "question": "Who?", "answers": []})
    long = json.dumps({"context": "x" * 3 * 2**20, "question": "Who?", "answers": []})
    columns = json.dumps({"context": CONTEXT, "question": "Who?", "answers": {"text": ["fox"], "answer_start": []}})
    (tmp_path / "train.jsonl").write_text("\n".join([good, "{", "[]", long, columns]))
    assert reasons(tmp_path) == {
        "train.jsonl:2": "not JSON: Expecting property name enclosed in double quotes",
        "train.jsonl:3": "not a JSON object",
        "train.jsonl:4": "over 1,048,576 bytes in a line",
        "train.jsonl:5": "it has no list 'answers', which is empty if the context does not answer the question",
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r"train\.json: it is empty: put text there"),
        ('{"data": []}'.encode("utf-16"), r"train\.json: it is in UTF-16 or UTF-32: save it as UTF-8$"),
        (b'{"data": [\xff]}', r"train\.json: byte 11 is not UTF-8: save the file as UTF-8$"),
        (
            b'{"a": 1}\n{"b": 2}',
            r"is not JSON \(Extra data: .*\): get another copy, or call it train\.jsonl if each",
        ),
        (b"[" * 100_000, r"is not JSON \(.*\): get another copy"),
        (b'{"data": ' + b"9" * 5_000 + b"}", r"is not JSON \(.*\): get another copy"),
        (b'{"questions": []}', r"is not in SQuAD's format, as it has no list 'data': write"),
        (b'{"data": [{"paragraphs": {}}]}', r"is not in SQuAD's format: article 1 has no list 'paragraphs'$"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, content, problem):
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(PedigreeError, match=problem):
        read(tmp_path)


def test_without_questions_for_training_it_is_said_what_is_expected(tmp_path):
    with pytest.raises(PedigreeError, match=r"no questions to train on \(none found\): add train\.json in SQuAD's"):
        read(tmp_path)
    (tmp_path / "test.json").write_text(squad())
    with pytest.raises(PedigreeError, match=r"\(only test found\)"):
        read(tmp_path)


def test_other_files_are_rejected_and_those_about_the_data_are_ignored(tmp_path):
    (tmp_path / "train.json").write_text(squad(qa("home", 14)))
    for name in ("README.md", "COMPOSED.txt", "notes.pdf"):
        (tmp_path / name).write_text("about it")
    found = read(tmp_path)
    assert [each.file for each in found.rejected] == ["notes.pdf"]
    assert found.ignored == ["README.md"]
