"""A text in, its label with the probabilities out, or one sentence that says why not."""

import pytest
import torch

from components.contracts import Rejected
from components.tasks.text_classification import serve
from components.tasks.text_classification.model import build_model
from tests.tasks.text_classification import tiny
from tests.tasks.text_classification.values import prepared, values


def predict_with(folder, **options):
    (folder / "raw").mkdir()
    header = ("text", "other", "label") if "pair" in options else ("text", "label")
    rows = [(text, *(["on the table"] if "pair" in options else []), label) for text, label in tiny.rows()]
    tiny.write_csv(folder / "raw" / "train.csv", rows, header)
    manifest = prepared(folder, **options).manifest
    torch.manual_seed(0)
    params = values(prepare=options)
    return serve.load_predict(build_model(params, manifest), manifest, params), serve.served(manifest, params)


@pytest.fixture(scope="module")
def predict(tmp_path_factory):
    return predict_with(tmp_path_factory.mktemp("data"))[0]


def test_an_answer_is_the_most_probable_class_and_the_probabilities_of_all(predict):
    (answer,) = predict([{"text": "the old apple"}], {})
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["probability"] == max(answer["probabilities"].values())
    assert answer["probabilities"][answer["label"]] == answer["probability"]


def test_a_text_is_answered_as_it_is_alone_whatever_texts_are_beside_it(predict):
    texts = ["the old apple", "fox", "a big red hammer under the small old table", "fox"]
    answers = predict([{"text": text} for text in texts], {})
    for text, answer in zip(texts, answers, strict=True):
        (alone,) = predict([{"text": text}], {})
        assert answer["label"] == alone["label"]
        assert answer["probability"] == pytest.approx(alone["probability"], abs=1e-5)
    assert answers[1] == answers[3]


def test_white_space_at_the_ends_is_no_part_of_a_text_and_odd_characters_are_read(predict):
    one, other, odd = predict([{"text": " a fox\n"}, {"text": "a fox"}, {"text": "👩‍💻 \u2028 ё \0"}], {})
    assert one == other
    assert odd["label"] in tiny.THINGS


def test_a_text_that_is_too_long_is_answered_by_its_beginning_and_the_answer_says_so(predict):
    long, cut, short = predict([{"text": "red " * 17}, {"text": "red " * 16 + "fox"}, {"text": "red " * 16}], {})
    assert long["note"] == cut["note"] == "only the first 16 tokens were read"
    assert short["note"] == ""
    assert long["probabilities"] == cut["probabilities"] == short["probabilities"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "the text cannot be used: expected a string in the column text and found null; send another"),
        (3.5, "the text cannot be used: expected a string in the column text and found float; send another"),
        (" ", "the text cannot be used: the text is empty; send another"),
        ("x" * (2**20 + 1), "the text cannot be used: 1,048,577 characters are over 1,048,576; send another"),
    ],
)
def test_a_text_that_cannot_be_used_is_rejected_and_the_others_are_answered(predict, text, reason):
    first, rejected, last = predict([{"text": "fox"}, {"text": text}, {"text": "fox"}], {})
    assert first == last
    assert rejected == Rejected(reason)


def test_half_a_character_is_rejected_as_lost(predict):
    (rejected,) = predict([{"text": "\ud800"}], {})
    assert isinstance(rejected, Rejected)
    assert "U+FFFD stands for characters that were lost" in rejected.reason


def test_of_a_pair_both_texts_are_needed(tmp_path):
    predict, served = predict_with(tmp_path, pair="other")
    assert [*served.inputs] == ["text", "pair"]
    assert (served.file, served.lines) == (None, None)
    assert (served.columns, served.header) == ({"text": "text", "pair": "other"}, True)
    answer, rejected = predict([{"text": "the fox", "pair": "on a table"}, {"text": "the fox"}], {})
    assert answer["label"] in tiny.THINGS
    assert rejected.reason.startswith(
        "the text cannot be used: expected a string in the column pair and found null"
    )


def test_several_labels_have_their_thresholds(tmp_path):
    predict, served = predict_with(tmp_path, separator="|")
    assert {*served.outputs} == {"labels", "probabilities", "thresholds", "note"}
    (answer,) = predict([{"text": "the fox"}], {})
    flagged = [name for name, each in answer["probabilities"].items() if each >= answer["thresholds"][name]]
    assert answer["labels"] == flagged
