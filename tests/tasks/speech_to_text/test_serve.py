"""Sound files of any kind are answered with timed words, long ones in pieces, and what is no sound is rejected."""

import base64
import io
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from components.contracts import Rejected, Row
from components.tasks.speech_to_text import serve
from tests.tasks.speech_to_text import tiny
from tests.tasks.speech_to_text.test_prepare import cepstra_file
from tests.tasks.speech_to_text.test_train import manifest, network
from tests.tasks.speech_to_text.values import values


def loaded():
    """Return the answers of an untrained network."""
    model = network()
    with torch.no_grad():
        model.output.weight *= 20  # so that some frames are no blanks
    answer = serve.load_predict(model, manifest(), values())
    return lambda rows, **settings: answer(rows, settings)


@pytest.fixture(scope="module")
def predict():
    return loaded()


def file(text: str = "fa ho", kind: str = "WAV", rate: int = tiny.RATE, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, tiny.spoken(text, rate=rate), rate, format=kind, subtype=subtype)
    return stream.getvalue()


def test_bytes_base64_and_a_data_url_are_answered_alike(predict):
    data = file()
    text = base64.b64encode(data).decode()
    answers = predict([{"audio": audio} for audio in (data, text, f"data:audio/wav;base64,{text}")])
    assert answers == [answers[0]] * 3
    assert {*answers[0]} == {"text", "confidence", "words"}


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("NIST", None)])
def test_other_formats_are_sounds_too(predict, kind, subtype):
    (answer,) = predict([{"audio": file("fa ho ri", kind, 16_000, subtype)}])
    assert 0 < answer["confidence"] <= 1


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (b"", "zero bytes"),
        (None, "found null"),
        (b"this is no sound", "not audio"),
        (
            b"\0\0\0\x20ftypM4A " + bytes(100),
            "MP4 (m4a, AAC), a format that is not read: convert it to wav or flac",
        ),
        (file()[:-100], "truncated"),
    ],
)
def test_what_is_no_sound_is_rejected_in_a_sentence_and_others_are_answered(predict, audio, reason):
    rejected, answer = predict([{"audio": audio}, {"audio": file()}])
    assert isinstance(rejected, Rejected)
    assert reason in rejected.reason
    assert isinstance(answer, dict)


def test_silence_is_rejected(predict):
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(8000), tiny.RATE, format="WAV")
    (rejected,) = predict([{"audio": stream.getvalue()}])
    assert rejected == Rejected("the recording cannot be used: silent; send another")


def heard(answer: Row) -> list[tuple[str, float]]:
    return [(word["word"], word["start"]) for word in answer["words"]]


def test_a_long_recording_is_answered_in_pieces_one_after_the_other(predict):
    sound = np.concatenate([tiny.spoken("fa ho ri"), np.zeros(2000)] * 20)
    stream = io.BytesIO()
    soundfile.write(stream, sound, tiny.RATE, format="WAV")
    (answer,) = predict([{"audio": stream.getvalue()}])
    assert " ".join(word["word"] for word in answer["words"]) == answer["text"]
    starts = [start for _, start in heard(answer)]
    assert starts == sorted(starts)
    assert starts[-1] > 10  # seconds, the longest piece
    assert answer["words"][-1]["end"] <= 20.1


@pytest.mark.parametrize("shape", [(10_000,), (10_000, 13)])
def test_pieces_make_up_the_recording_and_end_where_it_is_quiet(shape):
    sound = np.random.default_rng(0).integers(500, 1000, shape)
    sound[1700:1720] = sound[3400:3410] = 0
    pieces = list(serve.cut(sound, 2000, 100))
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), sound)
    assert [first for first, _ in pieces] == np.cumsum([0, *(len(piece) for _, piece in pieces[:-1])]).tolist()
    assert max(len(piece) for _, piece in pieces) <= 2000
    assert 1700 <= pieces[1][0] <= 1720


def test_a_short_recording_is_one_piece():
    assert [(first, len(piece)) for first, piece in serve.cut(np.ones(50), 50, 10)] == [(0, 50)]


def test_a_model_of_cepstra_takes_their_files():
    described = manifest(kind="cepstra")
    served = serve.served(described, values())
    assert served.file == "cepstra"
    predict = serve.load_predict(network(described), described, values())
    data = cepstra_file(np.random.default_rng(0).standard_normal((50, 13)))
    answer, example, rejected = predict([{"cepstra": each} for each in (data, served.example["cepstra"], b"x")], {})
    assert isinstance(answer, dict)
    assert isinstance(example, dict)
    assert isinstance(rejected, Rejected)


def test_the_example_is_answered_and_answers_can_be_printed_as_a_manifest(predict):
    served = serve.served(manifest(), values())
    (answer,) = predict([served.example])
    assert served.formats["nemo"]("a.wav", answer) == [{"audio_filepath": "a.wav", "pred_text": answer["text"]}]


def peak_of(recording: Path) -> int:
    """Answer a recording; return the memory in KiB that this program had at most."""
    (answer,) = loaded()([{"audio": recording.read_bytes()}])
    assert isinstance(answer, dict)
    status = Path("/proc/self/status").read_text()  # ru_maxrss is at least that of the process which started it
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.long
def test_an_hour_is_answered_in_less_than_two_gigabytes(tmp_path):
    with soundfile.SoundFile(tmp_path / "hour.wav", "w", 8000, 1) as stream:
        for number in range(60):
            stream.write(np.tile(tiny.spoken("fa ho ri", seed=number), 80))
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # other tests are in this process's memory
        assert pool.apply(peak_of, (tmp_path / "hour.wav",)) < 2 * 2**20
