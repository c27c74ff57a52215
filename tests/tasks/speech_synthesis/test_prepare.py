"""Recordings and texts become sound, characters and pitch; what cannot be learnt is rejected with its file."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from components.contracts import Manifest
from components.datasets.ingest import file_names
from components.errors import PedigreeError
from components.sound.recordings.intake import texts_of
from components.sound.recordings.recording import SYNTHETIC
from components.tasks.speech_synthesis.prepare import TEXT, SynthesisFacts, load_split
from tests.tasks.speech_synthesis import tiny
from tests.tasks.speech_synthesis.values import prepared


def rejected(manifest: Manifest) -> dict[str, str]:
    return {each.file: each.reason for each in manifest.rejected}


def raw(folder: Path, count: int = 12) -> Path:
    (folder / "raw").mkdir()
    tiny.write(folder / "raw", count)
    return folder / "raw"


def add(folder: Path, name: str, text: str, sound: np.ndarray | None = None) -> None:
    wave = tiny.spoken("aeiou aeiou", seed=99) if sound is None else sound
    soundfile.write(folder / f"{name}.wav", wave, tiny.RATE, subtype="PCM_16")
    (folder / f"{name}.txt").write_text(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    raw(folder, 40)
    return prepared(folder)


def test_a_recording_has_its_characters_between_two_silences_and_a_pitch_for_each_frame(data):
    facts = SynthesisFacts.model_validate(data.manifest.facts)
    assert facts.characters == " aeiou"
    texts, sounds = texts_of(data.folder, "train", TEXT), {name: own for name, _, own in tiny.recordings()}
    split = load_split(data.folder, "train")
    for index, (file, text) in enumerate(zip(file_names(data.folder, "train"), texts, strict=True)):
        own = split.__getitems__(torch.tensor([index]))
        silence = len(facts.characters) + 1
        assert own["target"][0].tolist() == [silence, *(facts.characters.index(each) + 1 for each in text), silence]
        expected = sounds[file.removesuffix(".wav")]
        assert own["sound"][0].numpy() / 32768 == pytest.approx(expected, abs=1e-4)
        assert own["pitch"].shape[1] == len(expected) // 128 + 1
        voiced = own["pitch"][own["pitch"] > 0]
        assert voiced.median() == pytest.approx(tiny.HEIGHT, rel=0.1)


def test_the_bands_of_training_have_the_mean_and_deviation_of_the_facts(data):
    facts = SynthesisFacts.model_validate(data.manifest.facts)
    assert len(facts.mean) == len(facts.std) == 16
    assert min(facts.std) > 0
    assert np.exp(facts.pitch[0]) == pytest.approx(140, rel=0.1)
    assert facts.hours["train"] > facts.hours["test"] > 0
    assert facts.example in texts_of(data.folder, "train", TEXT)


def test_metadata_of_ljspeech_and_a_manifest_of_nemo_are_read_like_text_files(data, tmp_path):
    for name in ("lj", "nemo"):
        (tmp_path / name / "raw" / "wavs").mkdir(parents=True)
        for file, _, sound in tiny.recordings():
            soundfile.write(tmp_path / name / "raw" / "wavs" / f"{file}.wav", sound, tiny.RATE, subtype="PCM_16")
    lines = "".join(f"{name}|{text.upper()}|{text}\n" for name, text, _ in tiny.recordings())
    (tmp_path / "lj" / "raw" / "metadata.csv").write_text(lines)
    entries = [{"audio_filepath": f"wavs/{name}.wav", "text": text} for name, text, _ in tiny.recordings()]
    (tmp_path / "nemo" / "raw" / "manifest.json").write_text("".join(f"{json.dumps(each)}\n" for each in entries))
    for name in ("lj", "nemo"):
        found = prepared(tmp_path / name).manifest
        assert not found.rejected
        assert found.facts["characters"] == " aeiou"
        assert sum(split.samples for split in found.splits.values()) == 40


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the text is empty"),
        ("   \n", "the text is empty"),
        ("aei \ufffd", "U+FFFD"),
        ("aeiou " * 30, "shorter than its transcript: 69 frames cannot have 181 characters and silences"),
    ],
)
def test_a_text_that_cannot_be_learnt_is_rejected_by_file(tmp_path, text, reason):
    add(raw(tmp_path), "odd", text)
    ((file, found),) = rejected(prepared(tmp_path, max_rejected=0.5).manifest).items()
    assert file == "odd.wav"
    assert reason in found


def test_a_test_text_with_characters_that_training_has_not_is_rejected(tmp_path):
    folder = raw(tmp_path)
    for split in ("train", "val", "test"):
        (folder / split).mkdir()
    for number, file in enumerate(sorted(folder.glob("*.wav"))):
        part = {0: "val", 1: "test"}.get(number, "train")
        for suffix in (".wav", ".txt"):
            path = file.with_suffix(suffix)
            path.rename(folder / part / path.name)
    add(folder / "test", "odd", "ae iq ñ")
    found = rejected(prepared(tmp_path, max_rejected=0.5).manifest)
    assert found == {"test/odd.wav": "the training transcripts have no 'q' (U+0071) 'ñ' (U+00F1)"}


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (np.zeros(8000), "silent"),
        (np.ones(8000) * np.sign(np.sin(np.arange(8000))), "clipped"),
        (np.tile(tiny.spoken("aeiou"), 30), "too long: 15.0 seconds is over max_seconds 10"),
    ],
)
def test_a_sound_that_cannot_be_learnt_is_rejected_by_file(tmp_path, sound, reason):
    add(raw(tmp_path), "odd", "aeiou", sound)
    ((file, found),) = rejected(prepared(tmp_path, max_rejected=0.5).manifest).items()
    assert file == "odd.wav"
    assert reason in found


def test_digits_are_spelt_or_the_recording_is_rejected(tmp_path):
    add(raw(tmp_path), "odd", "5 aei")
    text = {"lowercase": True, "punctuation": "keep", "numbers": "reject"}
    assert "the text has digits" in rejected(prepared(tmp_path, max_rejected=0.5, text=text).manifest)["odd.wav"]


def test_synthetic_recordings_and_several_speakers_are_noted(tmp_path):
    folder = raw(tmp_path)
    (folder / SYNTHETIC).write_text("A program spoke these.\n")
    for file in sorted(folder.glob("0*"))[:12]:
        file.rename(folder / f"anna_{file.name}")
    for file in sorted(folder.glob("0*")):
        file.rename(folder / f"bob_{file.name}")
    pattern = "^(?P<speaker>[a-z]+)_"
    note = prepared(tmp_path, speaker=pattern).manifest.note
    assert note.startswith("synthetic speech; ")
    assert "speakers are too few" in note


def test_a_folder_without_recordings_says_what_to_put_there(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(PedigreeError, match="has no recordings with transcripts to train on"):
        prepared(tmp_path)
