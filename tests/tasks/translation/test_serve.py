"""A text in, its best translations with their scores out, or one sentence that says why not."""

import pytest
import torch

from components.contracts import Rejected
from components.errors import PedigreeError
from components.tasks.translation import serve
from components.tasks.translation.model import build_model
from tests.tasks.translation import tiny
from tests.tasks.translation.values import prepared, values


@pytest.fixture(scope="module")
def predict(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "raw").mkdir()
    tiny.write(folder / "raw")
    manifest = prepared(folder).manifest
    torch.manual_seed(0)
    answer = serve.load_predict(build_model(values(), manifest), manifest, values())
    return lambda *texts, **settings: answer([{"text": text} for text in texts], settings)


def test_an_answer_is_the_best_of_its_translations_which_come_in_order(predict):
    (answer,) = predict("one cat", best=4)
    assert answer["translations"][0] == {name: answer[name] for name in ("translation", "score")}
    scores = [each["score"] for each in answer["translations"]]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert len({each["translation"] for each in answer["translations"]}) > 1


def test_tables_are_read_with_the_columns_of_the_data(tmp_path):
    (tmp_path / "raw").mkdir()
    tiny.write(tmp_path / "raw")
    params = values(prepare={"header": False, "source": "2", "target": "3"})
    served = serve.served(prepared(tmp_path).manifest, params)
    assert (served.columns, served.header) == ({"text": "2"}, False)


def test_without_a_setting_there_is_one_translation(predict):
    (answer,) = predict("one cat")
    assert len(answer["translations"]) == 1


def test_a_text_is_answered_as_it_is_alone_whatever_texts_are_beside_it(predict):
    texts = ["two blue dogs", "one", "red cat sees two dogs", "one"]
    answers = predict(*texts, best=2)
    for text, answer in zip(texts, answers, strict=True):
        (alone,) = predict(text, best=2)
        assert answer["translation"] == alone["translation"]
        assert answer["score"] == pytest.approx(alone["score"], abs=1e-5)
    assert answers[1] == answers[3]


def test_white_space_at_the_ends_is_no_part_of_a_text_and_odd_characters_are_read(predict):
    assert predict(" one cat\n") == predict("one cat")
    assert isinstance(predict("👩‍💻 \u2028 ё")[0], dict)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "the text cannot be used: expected a string in the column text and found null; send another"),
        (3.5, "the text cannot be used: expected a string in the column text and found float; send another"),
        (" ", "the text cannot be used: the text is empty; send another"),
        ("x" * 61, "the text cannot be used: 61 characters are over 60; send it sentence by sentence"),
    ],
)
def test_a_text_that_cannot_be_used_is_rejected_and_the_others_are_answered(predict, text, reason):
    first, rejected, last = predict("one", text, "one")
    assert first == last
    assert rejected == Rejected(reason)


def test_half_a_character_is_rejected_as_lost(predict):
    (rejected,) = predict("\ud800")
    assert isinstance(rejected, Rejected)
    assert "U+FFFD stands for characters that were lost" in rejected.reason


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"best": 0}, "best = 0: Input should be greater than or equal to 1"),
        ({"best": "2"}, "best = '2': Input should be a valid integer"),
        ({"beast": 2}, "'beast' is unknown; did you mean best?"),
    ],
)
def test_an_invalid_setting_is_an_error(predict, settings, expected):
    with pytest.raises(PedigreeError, match=r"^the request's params: ") as caught:
        predict("one", **settings)
    assert expected in str(caught.value)
