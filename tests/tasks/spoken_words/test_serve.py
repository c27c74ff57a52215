import base64
import io
import re
from itertools import product

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from components.contracts import Manifest, Rejected
from components.datasets.ingest import file_names
from components.tasks.spoken_words import TASK
from components.tasks.spoken_words.model import build_model
from components.tasks.spoken_words.prepare import load_split
from components.tasks.spoken_words.serve import load_predict, served
from tests.tasks.spoken_words import tiny
from tests.tasks.spoken_words.values import parameters

RATE, SECONDS = 8000, 0.25
PARAMS = parameters()


def manifest(words=("fall", "hold", "rise"), rate=RATE, seconds=SECONDS):
    facts = {
        "classes": list(words),
        "rate": rate,
        "seconds": seconds,
        "speaker": "(?P<speaker>.*)",
        "counts": {},
        "speakers": {},
    }
    return Manifest(task="spoken_words", splits={}, rejected=[], facts=facts)


def network(described=None):
    torch.manual_seed(0)
    return build_model(parameters("train.model.hidden=8", "train.features.mels=16"), described or manifest()).eval()


@pytest.fixture
def predict():
    answer = load_predict(network(), manifest(), PARAMS)
    return lambda rows: answer(rows, {})


def file(word="rise", kind="WAV", rate=RATE, subtype="PCM_16", **tone):
    stream = io.BytesIO()
    soundfile.write(stream, tiny.tone(word, rate=rate, **tone), rate, format=kind, subtype=subtype)
    return stream.getvalue()


def test_base64_and_a_data_url_are_answered_as_the_bytes_are(predict):
    data = file()
    text = base64.b64encode(data).decode()
    wrapped = base64.encodebytes(data).decode()  # with line ends, as mail and `base64` write it
    url = f"data:audio/wav;base64,{text}"
    answers = [predict([{"audio": audio}]) for audio in (data, bytearray(data), text, wrapped, url)]
    assert answers == [answers[0]] * 5


def test_samples_with_their_rate_are_answered_as_the_file_that_holds_them(predict):
    for rate in (RATE, 22_050):
        data = file(rate=rate)
        samples, _ = soundfile.read(io.BytesIO(data))
        given = (samples, samples.tolist(), samples.astype(np.float32))
        for samples, number in product(given, (rate, float(rate), np.int64(rate))):
            assert predict([{"samples": samples, "rate": number}]) == predict([{"audio": data}])


@pytest.mark.parametrize("nothing", [None, float("nan"), np.nan])
def test_columns_that_pandas_filled_up_are_as_if_they_were_not_there(predict, nothing):
    samples = tiny.tone("hold").tolist()
    assert predict([{"audio": file(), "samples": nothing, "rate": nothing}]) == predict([{"audio": file()}])
    row = {"samples": samples, "rate": RATE}
    assert predict([{**row, "audio": nothing}]) == predict([row])


def test_the_served_answer_is_what_evaluation_sees_for_every_test_file(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    tiny.write(raw)
    out.mkdir()
    params = parameters("prepare.rate=8000", "prepare.seconds=0.25", "train.model.hidden=8")
    described = TASK.prepare(raw, out, params)
    model = network(described)
    files = file_names(out, "test")
    lengths = {soundfile.info(raw / name).frames for name in files}
    assert min(lengths) < RATE * SECONDS < max(lengths)
    with torch.inference_mode():
        logits = model(load_split(out, "test")["clip"])
    answers = load_predict(model, described, params)([{"audio": (raw / name).read_bytes()} for name in files], {})
    words = described.facts["classes"]
    assert [answer["word"] for answer in answers] == [words[i] for i in logits.argmax(1)]
    expected = logits.double().softmax(1).amax(1).tolist()
    assert [answer["probability"] for answer in answers] == pytest.approx(expected, abs=1e-6)


def test_many_rows_are_answered_in_order(predict):
    rows = [{"audio": file("rise", pitch=0.5 + i / 50)} for i in range(70)]
    together = predict(rows)
    for row, answer in zip(rows, together, strict=True):
        (alone,) = predict([row])
        assert alone["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_no_rows_have_no_answers(predict):
    assert predict([]) == []


def test_every_word_has_its_probability():
    words = [f"word {i}" for i in range(100)]
    (answer,) = load_predict(network(manifest(words)), manifest(words), PARAMS)([{"audio": file()}], {})
    assert list(answer["probabilities"]) == words
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["probability"] == max(answer["probabilities"].values())
    assert answer["word"] == max(words, key=answer["probabilities"].__getitem__)


def test_of_equally_probable_words_the_first_is_the_answer():
    model = network()
    nn.init.zeros_(model.classifier.weight)
    nn.init.zeros_(model.classifier.bias)
    (answer,) = load_predict(model, manifest(), PARAMS)([{"audio": file()}], {})
    assert (answer["word"], answer["probability"]) == ("fall", pytest.approx(1 / 3))


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_sound_of_any_rate_width_length_and_loudness_is_answered(predict, kind):
    rows = [
        {"audio": file(kind=kind, rate=rate, subtype=subtype, seconds=seconds)}
        for rate in (4000, 11_025, 48_000)
        for subtype in ("PCM_16", "PCM_24")
        for seconds in (0.01, 0.25, 29)
    ]
    rows.append({"audio": file(pitch=3)})
    assert len(predict(rows)) == len(rows)


def test_a_badly_clipped_sound_is_answered_all_the_same(predict):
    samples = np.sign(tiny.tone("rise")).tolist()
    assert len(predict([{"samples": samples, "rate": RATE}])) == 1


def test_a_row_that_is_no_sound_is_rejected_and_the_others_are_answered(predict):
    rows = [{"audio": file("rise", pitch=0.5 + i / 50)} for i in range(70)]
    whole = predict(rows)
    rows[66] = {"audio": file()[:60]}
    answers = predict(rows)
    assert answers.pop(66) == Rejected("the sound cannot be used: truncated; send another")
    for answer, before in zip(answers, whole[:66] + whole[67:], strict=True):
        assert answer["probabilities"] == pytest.approx(before["probabilities"], abs=1e-5)


def test_rows_none_of_which_is_a_sound_are_all_rejected(predict):
    assert [type(answer) for answer in predict([{"audio": b""}] * 65)] == [Rejected] * 65


def test_a_sound_longer_than_preparation_takes_is_rejected():
    answer = load_predict(network(), manifest(), parameters("prepare.max_seconds=0.5"))
    whole = {"samples": tiny.tone("rise", seconds=0.5).tolist(), "rate": RATE}
    over = {"samples": [*whole["samples"], 0.0], "rate": RATE}
    fits, file_over, over = answer([whole, {"audio": file(seconds=0.51)}, over], {})
    assert "word" in fits
    for rejected in (file_over, over):
        assert re.match(
            r"the sound cannot be used: too long: 0\.5 seconds is over (max_seconds )?0\.5; send", rejected.reason
        )


SAMPLES = tiny.tone("rise").tolist()
BAD = [
    ({"audio": "not base64!"}, "neither base64 nor a data URL"),
    ({"audio": "nicht base64 ä"}, "neither base64 nor a data URL"),
    ({"audio": "data:audio/wav;base64"}, "neither base64 nor a data URL"),
    ({"audio": "data:audio/wav;base64,"}, "zero bytes"),
    ({"audio": "data:audio/wav;base64,a*b"}, "the text of the data URL is not base64"),
    ({"audio": ""}, "zero bytes"),
    ({"audio": b""}, "zero bytes"),
    ({"audio": 3}, "expected bytes, base64 or a data URL in the column audio and found int"),
    ({"audio": b"no sound at all, but long enough to be one" * 20}, "not audio"),
    ({"audio": file(seconds=31)}, r"too long: 31\.0 seconds is over max_seconds 30"),
    ({"samples": [0.0] * 900, "rate": RATE}, "silent"),
    ({"samples": [], "rate": RATE}, "empty"),
    ({"samples": SAMPLES * 130, "rate": RATE}, r"too long: 32\.5 seconds is over 30"),
    ({"samples": SAMPLES, "rate": 0}, "too long|0 samples a second"),
    ({"samples": SAMPLES, "rate": -8000}, "too long|-8000 samples a second"),
    ({"samples": SAMPLES, "rate": 8000.5}, r"expected a whole number in the column rate and found 8000\.5"),
    ({"samples": SAMPLES, "rate": float("inf")}, "expected a whole number in the column rate and found inf"),
    ({"samples": SAMPLES, "rate": "8000"}, "expected a whole number in the column rate and found '8000'"),
    ({"samples": SAMPLES, "rate": True}, "expected a whole number in the column rate and found True"),
    ({"samples": [3000.0, -9000.0, 100.0], "rate": RATE}, "its samples go up to 9000 and belong between -1 and 1"),
    ({"samples": [0.5, float("nan")], "rate": RATE}, "some samples are not finite numbers"),
    ({"samples": [0.5, "loud"], "rate": RATE}, "expected a list of numbers in the column samples"),
    ({"samples": [[0.5], [0.1]], "rate": RATE}, "expected a list of numbers .* and found 2 dimensions"),
    ({"samples": 0.5, "rate": RATE}, "expected a list of numbers .* and found 0 dimensions"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_what_is_no_sound_is_rejected_with_the_reason(predict, row, reason):
    (answer,) = predict([row])
    assert isinstance(answer, Rejected)
    assert re.match(f"the sound cannot be used: .*({reason})", answer.reason)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"rate": RATE},
        {"samples": SAMPLES},
        {"audio": None},
        {"audio": file(), "samples": SAMPLES, "rate": RATE},
        {"audio": file(), "rate": RATE},
        {"picture": b""},
    ],
)
def test_a_row_without_exactly_one_sound_is_rejected_with_what_to_send(predict, row):
    (answer,) = predict([row])
    assert "send either audio, or samples with their rate" in answer.reason


def test_a_network_that_was_training_answers_as_in_evaluation_and_is_left_unchanged():
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    answer = load_predict(model, manifest(), PARAMS)
    assert answer([{"audio": file()}], {}) == answer([{"audio": file()}], {})
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(("rate", "seconds"), [(4000, 0.1), (16_000, 1.0), (48_000, 3.0)])
def test_the_example_is_answered_with_the_columns_that_were_promised(rate, seconds):
    described = manifest(rate=rate, seconds=seconds)
    promise = served(described, PARAMS)
    assert set(promise.example) < set(promise.inputs) == promise.optional
    (answer,) = load_predict(network(described), described, PARAMS)([promise.example], {})
    assert list(answer) == list(promise.outputs)
    assert served(described, PARAMS) == promise
