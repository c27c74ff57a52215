"""Speech is compared with recordings of the same texts; recognisers of any task's version can listen to it."""

import numpy as np
import pytest
import torch

from components.contracts import Prepared, Rejected
from components.errors import PedigreeError
from components.sound.recordings.intake import texts_of
from components.tasks.speech_synthesis import evaluate
from components.tasks.speech_synthesis.evaluate import RECOGNISER, further_metrics, outcomes_from, wav
from components.tasks.speech_synthesis.prepare import SOUND, TEXT, load_split
from tests.tasks.speech_synthesis import tiny
from tests.tasks.speech_synthesis.values import prepared


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("data")
    (folder / "raw").mkdir()
    tiny.write(folder / "raw")
    return prepared(folder)


def recorded(data: Prepared) -> list[torch.Tensor]:
    rows = load_split(data.folder, "test").ragged[SOUND]
    return [rows[index] for index in range(len(rows))]


def answers(sounds: list[torch.Tensor]) -> list[dict]:
    return [{"sound": wav(sound, tiny.RATE), "seconds": 1.0} for sound in sounds]


def predictions(sounds: list[torch.Tensor]) -> list[dict]:
    longest = max(map(len, sounds))
    rows = torch.stack([torch.nn.functional.pad(sound, (0, longest - len(sound))) for sound in sounds])
    return [{"speech": rows, "speech_length": torch.tensor([len(sound) for sound in sounds])}]


def test_the_recordings_themselves_have_no_distortion_and_no_error_of_pitch(data):
    table = outcomes_from(answers(recorded(data)), data)
    every = np.ones(len(table.samples))
    assert evaluate.score(data.manifest).of(table.columns, every) == pytest.approx(0, abs=1e-4)
    (rmse,) = evaluate.further_scores(data.manifest)
    assert rmse.of(table.columns, every) == pytest.approx(0, abs=1e-6)
    assert table.columns["voiced"].min() > 10
    assert table.columns["of_mean"].min() > 5


def test_other_texts_are_farther_from_a_recording_than_its_own_one_with_noise(data):
    sounds = recorded(data)
    torch.manual_seed(0)
    noisy = [(sound + 30 * torch.randn(len(sound))).to(torch.int16) for sound in sounds]
    near, far = (outcomes_from(answers(own), data).columns for own in (noisy, [*sounds[1:], sounds[0]]))
    assert near["distortion"].mean() < far["distortion"].mean() / 2


def test_a_voice_that_is_higher_has_the_error_of_pitch_of_its_logarithm(data, monkeypatch):
    monkeypatch.setattr(tiny, "HEIGHT", 1.2 * tiny.HEIGHT)
    texts = texts_of(data.folder, "test", TEXT)
    higher = [torch.from_numpy(32768 * tiny.spoken(text)).short() for text in texts]
    table = outcomes_from(answers(higher), data)
    (rmse,) = evaluate.further_scores(data.manifest)
    assert rmse.of(table.columns, np.ones(len(texts))) == pytest.approx(np.log(1.2), rel=0.1)


def test_a_rejected_text_counts_as_the_mean_frame(data):
    table = outcomes_from([Rejected("too long"), *answers(recorded(data)[1:])], data)
    assert table.columns["distortion"][0] == table.columns["of_mean"][0]
    assert table.columns["distortion"][1] == pytest.approx(0, abs=1e-4)


def test_answers_without_a_sound_or_of_another_rate_are_named(data):
    with pytest.raises(PedigreeError, match="its answers have no column 'sound' but text"):
        outcomes_from([{"text": "a"}], data)
    with pytest.raises(PedigreeError, match=r"16,000 samples a second and the test recordings 8,000"):
        outcomes_from([{"sound": wav(recorded(data)[0], 16_000)}], data)


def heard(data: Prepared, sounds: list[torch.Tensor], recognise) -> dict[str, float]:
    asked = []

    def answering(folder):
        asked.append(folder)
        return recognise

    found = further_metrics(predictions(sounds), data, {RECOGNISER: data.folder}, answering)
    assert asked == [data.folder]
    return found


def test_word_error_rates_are_those_of_what_is_said_and_of_what_was_recorded(data):
    sounds, texts = recorded(data), texts_of(data.folder, "test", TEXT)
    known = {wav(sound, tiny.RATE): text for sound, text in zip(sounds, texts, strict=True)}
    del known[wav(sounds[0], tiny.RATE)]  # is not understood

    def recognise(rows, settings):
        return [{"text": known[row["audio"]]} if row["audio"] in known else Rejected("silent") for row in rows]

    own = len(texts[0].split())
    share = own / sum(len(text.split()) for text in texts)
    found = heard(data, sounds, recognise)
    assert found == pytest.approx({"wer": share, "wer_of_recordings": share, "wer_of_understood": 0})
    found = heard(data, [torch.ones(100, dtype=torch.int16) for _ in sounds], recognise)
    assert found == pytest.approx({"wer": 1, "wer_of_recordings": share, "wer_of_understood": 1})


def test_a_version_that_hears_no_words_is_named_with_what_to_name_instead(data):
    with pytest.raises(PedigreeError, match=r"^evaluate\.recogniser names a version whose answers have no text"):
        heard(data, recorded(data), lambda rows, settings: [{"label": "yes"} for _ in rows])
