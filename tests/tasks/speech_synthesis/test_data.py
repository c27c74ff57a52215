"""The embedded sentences are words alone, and an independent recogniser understands a voice that learns them."""

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_model

from benchmarks import voice as listening
from components.contracts import Prepared, Worker
from components.errors import PedigreeError
from components.params import read, validate
from components.sound import voices
from components.sound.recordings.recording import SYNTHETIC
from components.tasks.speech_synthesis import TASK, data
from components.tasks.speech_synthesis.params import SynthesisParams
from components.tasks.speech_synthesis.prepare import prepare
from components.training import loop
from tests.conftest import PARAMS
from tests.tasks.speech_synthesis.values import ROOT

needs_voice = pytest.mark.skipif(
    find_spec("hibari") is None, reason="Hibari is not installed: the extra [demo] has it"
)
needs_recogniser = pytest.mark.skipif(
    find_spec("pocketsphinx") is None,
    reason="pocketsphinx is not installed: the extra [dev] has it, for Python 3.11",
)


@pytest.fixture
def spoken(monkeypatch):
    """What Hibari is asked to say."""
    found = []
    monkeypatch.setattr(voices, "hibari", lambda name, folder, sentences, notice: found.extend(sentences))
    return found


def test_all_sentences_differ_and_have_words_and_few_marks_alone(spoken, tmp_path):
    data.voice(tmp_path)
    texts = [each.text for each in spoken]
    assert len(texts) == len(set(texts)) == data.LINES + data.COMMANDS
    assert {*"".join(texts).lower()} <= {*"abcdefghijklmnopqrstuvwxyz ,.-"}


def test_without_the_package_one_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(voices, "find_spec", lambda name: None)
    with pytest.raises(PedigreeError, match=r"the voice of the embedded voice, is not installed: install it with"):
        data.voice(tmp_path)


@needs_voice
@needs_recogniser
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_trained_voice_is_understood_in_part_by_an_independent_recogniser(tmp_path):
    for name in ("raw", "prepared", "model"):
        (tmp_path / name).mkdir()
    data.voice(tmp_path / "raw")
    assert "No person spoke" in (tmp_path / "raw" / SYNTHETIC).read_text()
    params = validate(SynthesisParams, read(PARAMS), ROOT)
    prepared = Prepared(tmp_path / "prepared", prepare(tmp_path / "raw", tmp_path / "prepared", params))
    assert prepared.manifest.note == "synthetic speech"
    loop.fit(TASK, params, prepared, tmp_path / "model", Worker(torch.device("cpu")))
    network = TASK.build_model(params, prepared.manifest).eval()
    load_model(network, tmp_path / "model" / "weights.safetensors")
    predict = TASK.load_predict(network, prepared.manifest, params)
    found = listening.error_rates(predict, prepared.folder, prepared.manifest)
    assert found["wer_of_recordings"] < 0.3
    assert found["wer"] < 0.9
