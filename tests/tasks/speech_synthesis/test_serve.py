"""A text is answered with a wav file; what cannot be said is rejected in a sentence, and others are answered."""

import io

import numpy as np
import pytest
import soundfile

from components.contracts import Rejected
from components.errors import PedigreeError
from components.tasks.speech_synthesis import serve
from tests.tasks.speech_synthesis.values import manifest, network, values


@pytest.fixture(scope="module")
def predict():
    answer = serve.load_predict(network(), manifest(), values())
    return lambda rows, **settings: answer(rows, settings)


def samples(answer) -> np.ndarray:
    sound, rate = soundfile.read(io.BytesIO(answer["sound"]), dtype="int16")
    assert rate == 8000
    return sound


def test_a_text_is_answered_with_a_wav_file_of_its_length(predict):
    (answer,) = predict([{"text": "Ae  IO\n"}])
    assert len(samples(answer)) / 8000 == answer["seconds"] > 0
    assert samples(answer).any()


def test_an_answer_depends_on_no_other_row_and_is_the_same_each_time(predict):
    (alone,) = predict([{"text": "ae io"}])
    _, beside, _ = predict([{"text": "aaaaaaaa"}, {"text": "ae io"}, {"text": "u"}])
    assert beside == alone


def test_a_multiple_of_the_speed_divides_the_length(predict):
    lengths = [predict([{"text": "aeiou aeiou aeiou"}], speed=speed)[0]["seconds"] for speed in (0.5, 1, 2)]
    assert lengths[0] / lengths[1] == pytest.approx(2, rel=0.05)
    assert lengths[1] / lengths[2] == pytest.approx(2, rel=0.1)


def test_a_seed_gives_the_same_sound_each_time_and_another_seed_another_one(predict):
    first, again, other = (predict([{"text": "ae io"}], seed=seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert first["seconds"] == other["seconds"]
    assert first["sound"] != other["sound"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the text is empty"),
        ("  \n ", "the text is empty"),
        (None, "expected a string in the column text and found null"),
        (3, "expected a string in the column text and found int"),
        ("aei qx", "the texts that the voice has learnt from have no 'q' (U+0071) 'x' (U+0078)"),
        ("ae\ud800", "U+FFFD stands for characters that were lost"),
        ("a" * 2**20, "1,048,576 characters are over 100; send it in parts"),
    ],
)
def test_what_cannot_be_said_is_rejected_in_a_sentence_and_others_are_answered(predict, text, reason):
    rejected, answer = predict([{"text": text}, {"text": "ae io"}])
    assert isinstance(rejected, Rejected)
    assert reason in rejected.reason
    assert "\n" not in rejected.reason
    assert samples(answer).any()


def test_a_text_whose_answer_would_be_too_long_is_rejected():
    params = values(evaluate={"limits": {"seconds": 0.2}})
    answer = serve.load_predict(network(), manifest(), params)
    (rejected,) = answer([{"text": "aeiou aeiou"}], {"speed": 0.25})
    assert isinstance(rejected, Rejected)
    assert rejected.reason.endswith("s, over 0.2; send it in parts")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"speed": 0}, "speed = 0"), ({"speed": "fast"}, "speed = 'fast'"), ({"seed": -1}, "seed = -1")],
)
def test_a_setting_that_is_invalid_is_an_error_of_the_request(predict, settings, problem):
    with pytest.raises(PedigreeError, match=f"the request's params: {problem}"):
        predict([{"text": "ae"}], **settings)


def test_a_setting_that_does_not_exist_is_named_with_the_nearest_one(predict):
    with pytest.raises(PedigreeError, match="'sped' is unknown; did you mean speed"):
        predict([{"text": "ae"}], sped=1)


def test_the_example_is_answered(predict):
    (answer,) = predict([serve.served(manifest(), values()).example])
    assert samples(answer).any()
