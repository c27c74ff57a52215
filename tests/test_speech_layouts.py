"""Public recordings are laid out by their official splits, as docs/results.md says; composed ones are called so."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import speech_layouts
from components.sound.recordings import layouts


def write(file: Path, seconds: float = 0.3, rate: int = 8000) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate))
    soundfile.write(file, sound, rate)


def test_the_first_word_of_yesno_decides_the_split_and_the_name_is_the_transcript(tmp_path):
    for name in ("0_1_0", "1_1_0", "0_0_0"):
        write(tmp_path / "yesno" / "waves_yesno" / f"{name}.wav")
    speech_layouts.yesno(tmp_path, tmp_path / "raw")
    found = layouts.survey(tmp_path / "raw").splits
    assert [(each.file, each.text.strip()) for each in found["train"]] == [
        ("train/0_0_0.wav", "no no no"),
        ("train/0_1_0.wav", "no yes no"),
    ]
    assert [each.text.strip() for each in found["test"]] == ["yes yes no"]


def test_prompts_without_words_or_of_another_length_are_left_out(tmp_path):
    source = tmp_path / "asterisk-en"
    texts = {"hello": "Hello, there.", "beep": "[this is a beep]", "short": "Hi.", "long": "So.", "sub/one": "1"}
    lines = ["; comment: no", *(f"{name}: {text}" for name, text in texts.items()), "missing: Not there."]
    seconds = {"short": 0.4, "long": 10.5}
    for name in texts:
        write(source / f"{name}.flac", seconds.get(name, 1))
    (source / "core-sounds-en.txt").write_text("\n".join(lines))
    speech_layouts.asterisk(tmp_path, tmp_path / "raw")
    found = {path.name: path.parent.name for path in (tmp_path / "raw").rglob("*.flac")}
    assert {*found} == {"hello.flac", "sub-one.flac"}
    place = int(hashlib.sha256(b"hello").hexdigest(), 16) % 10
    assert found["hello.flac"] == {8: "val", 9: "test"}.get(place, "train")


def test_strings_of_digits_are_composed_of_one_speakers_clips_of_their_split(tmp_path, monkeypatch):
    monkeypatch.setattr(speech_layouts, "STRINGS", {"train": 6, "val": 2, "test": 2})
    monkeypatch.setattr(speech_layouts, "INDICES", {"test": range(1), "val": range(1, 2), "train": range(2, 3)})
    for speaker in ("ann", "bob"):
        for digit in range(10):
            for index in range(3):
                write(tmp_path / "in" / f"{digit}_{speaker}_{index}.wav")
    speech_layouts.fsdd_strings(tmp_path / "in", tmp_path / "raw")
    found = layouts.survey(tmp_path / "raw").splits
    assert {split: len(own) for split, own in found.items()} == {"train": 6, "val": 2, "test": 2}
    for each in found["train"]:
        digits = each.text.split()
        assert 2 <= len(digits) <= 7
        seconds = soundfile.info(tmp_path / "raw" / each.file).duration
        assert 0.32 * len(digits) <= seconds <= 0.6 * len(digits) + 0.01
    assert (tmp_path / "raw" / "COMPOSED.txt").is_file()


def test_of_an4_the_lists_and_the_cepstra_are_copied(tmp_path):
    for name in ("etc/an4_train.fileids", "etc/an4_train.transcription", "etc/an4.ug.lm.DMP", "feat/x/a/b.mfc"):
        (tmp_path / "an4" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "an4" / name).write_text("")
    speech_layouts.an4(tmp_path, tmp_path / "raw")
    files = {path.relative_to(tmp_path / "raw").as_posix() for path in (tmp_path / "raw").rglob("*.*")}
    assert files == {"etc/an4_train.fileids", "etc/an4_train.transcription", "feat/x/a/b.mfc"}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_official_test_clips_of_digits_are_in_no_other_split(split):
    own = {*speech_layouts.INDICES[split]}
    assert (own == {0, 1, 2, 3, 4}) == (split == "test")
    assert sum(index in others for others in speech_layouts.INDICES.values() for index in own) == len(own)
