"""Recordings of any length, rate and format become arrays; what cannot be used is rejected with its file."""

import io
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from components.contracts import Manifest, Prepared
from components.datasets.ingest import file_names
from components.errors import PedigreeError
from components.params import located
from components.sound.cepstra import COEFFICIENTS
from components.sound.recordings.intake import speakers_of, texts_of
from components.sound.recordings.transcripts import normalised
from components.tasks.speech_to_text.prepare import (
    SOUND,
    TEXT,
    RecognitionFacts,
    load_split,
    prepare,
)
from components.text import ngrams, tokens
from tests.tasks.speech_to_text import tiny
from tests.tasks.speech_to_text.values import prepared, values


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("data")
    (folder / "raw").mkdir()
    tiny.write(folder / "raw")
    return prepared(folder)


def facts_of(data: Prepared) -> RecognitionFacts:
    return RecognitionFacts.model_validate(data.manifest.facts)


def add(raw: Path, name: str, text: str, sound: np.ndarray | None = None, rate: int = tiny.RATE) -> None:
    raw.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
    wave = tiny.spoken("fa ho", rate=rate, seed=len(name)) if sound is None else sound
    soundfile.write(raw / name, wave, rate)
    raw.joinpath(name).with_suffix(".txt").write_text(text)


def rejected(manifest: Manifest) -> dict[str, str]:
    return {each.file: each.reason for each in manifest.rejected}


def test_each_recording_has_its_samples_its_text_and_its_tokens(data):
    sounds = {f"{name}.wav": (text, sound) for name, text, sound in tiny.recordings()}
    tokenizer = tokens.load(facts_of(data).tokenizer)
    seen = set()
    for split in ("train", "val", "test"):
        columns = load_split(data.folder, split)
        files = file_names(data.folder, split)
        for index, (file, text) in enumerate(zip(files, texts_of(data.folder, split, TEXT), strict=True)):
            assert text == sounds[file][0]
            assert tokens.decode(tokenizer, columns.ragged["target"][index].tolist()) == text
            expected = np.clip(np.rint(sounds[file][1] * 32768), -32768, 32767)
            assert np.abs(columns.ragged[SOUND][index].numpy() - expected).max() <= 1
        assert columns.lengths.tolist() == [len(sounds[file][1]) for file in files]
        seen |= {*files}
    assert seen == {*sounds}


def test_no_speaker_is_in_two_splits_that_are_drawn(data):
    speakers = [{*speakers_of(data.folder, split)} for split in ("train", "val", "test")]
    assert sum(map(len, speakers)) == len(set().union(*speakers)) == len(tiny.SPEAKERS)
    assert facts_of(data).speakers["test"] == 1
    assert data.manifest.drawn.endswith("recordings, by 1 speaker")


def test_the_n_grams_are_counted_in_the_training_transcripts_alone(data):
    model = ngrams.parsed(facts_of(data).ngrams)
    sentences = sorted(texts_of(data.folder, "train", TEXT))
    assert model.entries.keys() == ngrams.counted([text.split() for text in sentences], 2).entries.keys()


def test_n_grams_can_come_from_a_file_or_not_at_all(tmp_path, raw):
    tiny.write(raw)
    model = ngrams.counted([["fa", "ho"], ["ri"]], 2)
    (tmp_path / "own.arpa").write_text(model.arpa())
    options = values(prepare={"ngrams": {"order": 2, "from": "own.arpa"}})
    options = options.model_copy(update={"prepare": located(options.prepare, tmp_path)})
    (tmp_path / "out").mkdir()
    facts = prepare(raw, tmp_path / "out", options).facts
    assert facts["ngrams"] == model.arpa()
    assert facts_of(prepared(tmp_path, ngrams={"order": 0})).ngrams == ""
    with pytest.raises(PedigreeError, match="from names a model and order is 0"):
        values(prepare={"ngrams": {"order": 0, "from": "own.arpa"}})


@pytest.mark.parametrize(("suffix", "kind", "subtype"), [
    ("wav", "WAV", "PCM_24"), ("flac", "FLAC", None), ("mp3", "MP3", None), ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"), ("sph", "NIST", "PCM_16"),
])  # fmt: skip
def test_a_recording_may_have_any_of_the_formats_and_rates(tmp_path, raw, suffix, kind, subtype):
    tiny.write(raw, 40)
    sound = tiny.spoken("fa ho ri", rate=48_000)
    soundfile.write(raw / f"anna_x.{suffix}", sound, 48_000, format=kind, subtype=subtype)
    (raw / "anna_x.txt").write_text("fa ho ri")
    result = prepared(tmp_path)
    assert rejected(result.manifest) == {}
    for split in ("train", "val", "test"):
        if f"anna_x.{suffix}" in (files := file_names(result.folder, split)):
            row = load_split(result.folder, split).ragged[SOUND][files.index(f"anna_x.{suffix}")]
            assert len(row) == pytest.approx(6000, abs=400)  # mp3 and opus pad
            return
    raise AssertionError("it is in no split")


def spoilt(raw: Path) -> None:
    """Write recordings of which each cannot be used for another reason."""
    tiny.write(raw)
    add(raw, "short.wav", "a sentence that nobody says in half a second")
    add(raw, "empty.wav", " \n")
    add(raw, "digits.wav", "press 1")
    add(raw, "marks.wav", "?!")
    add(raw, "lost.wav", "fa \ufffd")
    add(raw, "silent.wav", "fa", np.zeros(8000))
    add(raw, "long.wav", "fa", np.tile(tiny.spoken("fa"), 41))
    add(raw, "none.wav", "fa", np.zeros(0))
    (raw / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    (raw / "phone.txt").write_text("fa")
    (raw / "text.wav").write_text("this is no sound")
    (raw / "text.txt").write_text("fa")
    (raw / "pointer.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    (raw / "pointer.txt").write_text("fa")
    (raw / "alone.wav").write_bytes(b"")
    (raw / "latin.txt").write_bytes(b"caf\xe9")
    soundfile.write(raw / "latin.wav", tiny.spoken("fa"), tiny.RATE)


def test_what_cannot_be_used_is_rejected_with_its_file_and_the_reason(tmp_path, raw):
    spoilt(raw)
    found = rejected(prepared(tmp_path, max_rejected=0.5, speaker="").manifest)
    assert {file: reason.partition(":")[0] for file, reason in found.items()} == {
        "short.wav": "shorter than its transcript",
        "empty.wav": "the text is empty",
        "digits.wav": "the text has digits, which are not what is said",
        "marks.wav": "the text has no words",
        "lost.wav": "U+FFFD stands for characters that were lost when the text was converted",
        "silent.wav": "silent",
        "long.wav": "too long",
        "none.wav": "empty",
        "phone.m4a": "MP4 (m4a, AAC), a format that is not read",
        "text.wav": "not audio",
        "pointer.wav": "a Git LFS pointer, not its file",
        "alone.wav": "no transcript",
        "latin.wav": "its transcript",
    }
    assert re.search(r"13 frames after subsampling cannot have \d+ tokens$", found["short.wav"])
    assert "byte 4 is not UTF-8" in found["latin.wav"]


def test_too_many_rejections_stop_the_stage_and_are_listed(tmp_path, raw):
    spoilt(raw)
    with pytest.raises(
        PedigreeError, match=r"13 of 73 files cannot be used, more than prepare\.max_rejected 0\.05"
    ):
        prepared(tmp_path)
    assert (tmp_path / "rejected.json").is_file()


def test_a_recording_of_the_test_split_is_rejected_in_training(tmp_path, raw):
    for split, first in (("train", 0), ("test", 20), ("val", 30)):
        for name, text, sound in tiny.recordings()[first : first + 10]:
            add(raw, f"{split}/{name}.wav", text, sound)
    shutil.copyfile(raw / "test" / "carl_20.wav", raw / "train" / "again.wav")
    (raw / "train" / "again.txt").write_text("fa")
    result = prepared(tmp_path)
    assert rejected(result.manifest) == {
        "train/again.wav": "duplicate of the recording test/carl_20.wav of another split"
    }
    assert result.manifest.splits["test"].samples == 10


def test_digits_are_spelt_if_the_parameter_says_so(tmp_path, raw):
    tiny.write(raw)
    for name in ("anna_y.wav", "bob_y.wav"):
        add(raw, name, "1 2", np.tile(tiny.spoken("fa"), 2))
    result = prepared(tmp_path, text={"numbers": "spell"})
    assert rejected(result.manifest) == {}
    assert "one two" in [
        text for split in ("train", "val", "test") for text in texts_of(result.folder, split, TEXT)
    ]


@pytest.mark.parametrize(
    ("text", "params", "expected"),
    [
        ("  Don\u2019t  Stop!\n", {}, "don't stop"),
        ("Cafe\u0301, co-op", {}, "caf\u00e9 co op"),
        ("Don't Stop!", {"lowercase": False, "punctuation": "keep"}, "Don't Stop!"),
        ("\u0928\u092e\u0938\u094d\u0924\u0947", {}, "\u0928\u092e\u0938\u094d\u0924\u0947"),
        ("null", {}, "null"),
        ("she said \u2018don\u2019t stop\u2019 to him", {}, "she said don't stop to him"),
    ],
)
def test_transcripts_are_written_in_one_way(text, params, expected):
    assert normalised(text, values(prepare={"text": params}).prepare.text) == expected


def test_byte_pairs_write_every_transcript(tmp_path, raw):
    tiny.write(raw)
    result = prepared(tmp_path, tokens={"name": "bpe", "vocabulary": 260})
    tokenizer = tokens.load(facts_of(result).tokenizer)
    for index, text in enumerate(texts_of(result.folder, "test", TEXT)):
        ids = load_split(result.folder, "test").ragged["target"][index].tolist()
        assert tokens.decode(tokenizer, ids) == text


def cepstra_file(values: np.ndarray) -> bytes:
    return np.array(values.size, ">i4").tobytes() + values.astype(">f4").tobytes()


def write_cepstra(raw: Path) -> None:
    (raw / "etc").mkdir()
    for split, count in (("train", 30), ("test", 6)):
        lines = [f"ann/{split}{number}" for number in range(count)]
        (raw / "etc" / f"x_{split}.fileids").write_text("".join(f"{line}\n" for line in lines))
        (raw / "etc" / f"x_{split}.transcription").write_text(
            "".join(f"FA HO ({line.partition('/')[2]})\n" for line in lines)
        )
        for number, line in enumerate(lines):
            values = np.random.default_rng(number + 100 * count).standard_normal((40 + number, COEFFICIENTS))
            (raw / "feat" / line).parent.mkdir(parents=True, exist_ok=True)
            (raw / "feat" / f"{line}.mfc").write_bytes(cepstra_file(values))


def test_cepstra_are_prepared_in_place_of_sound(tmp_path, raw):
    write_cepstra(raw)
    result = prepared(tmp_path)
    facts, row = facts_of(result), load_split(result.folder, "test").ragged[SOUND][0]
    assert (facts.kind, facts.hop, row.dtype.is_floating_point, row.shape[1]) == ("cepstra", 0.01, True, 13)
    assert facts.seen == 1.0
    assert facts.commonest == "fa ho"


def test_sound_beside_cepstra_is_an_error(tmp_path, raw):
    write_cepstra(raw)
    (raw / "wav" / "ann").mkdir(parents=True)
    (raw / "feat" / "ann" / "train0.mfc").rename(raw / "wav" / "ann" / "train0.wav")
    with pytest.raises(PedigreeError, match="has both sound and cepstra: leave one kind there"):
        prepared(tmp_path)


def test_what_is_composed_or_synthetic_is_called_so(tmp_path, raw):
    tiny.write(raw)
    (raw / "SYNTHETIC.txt").write_text("")
    (raw / "COMPOSED.txt").write_text("")
    assert prepared(tmp_path).manifest.note == "synthetic speech; composed recordings"


def test_a_single_speaker_is_divided_by_recording_and_two_are_named(tmp_path, raw, caplog):
    for number, (_, text, sound) in enumerate(tiny.recordings()):
        add(raw, f"{'ab'[number % 2]}_{number}.wav", text, sound)
    assert "a speaker is in two splits" in prepared(tmp_path).manifest.note
    shutil.rmtree(tmp_path / "prepared")
    with caplog.at_level(logging.WARNING):
        assert prepared(tmp_path, speaker="").manifest.note == ""


def test_too_few_recordings_are_an_error(tmp_path, raw):
    add(raw, "a.wav", "fa ho")
    add(raw, "b.wav", "fa ho")
    with pytest.raises(PedigreeError, match="2 recordings for training are too few to draw test from them"):
        prepared(tmp_path)


def test_a_speaker_pattern_needs_its_group():
    with pytest.raises(PedigreeError, match="has no group named speaker"):
        values(prepare={"speaker": "(.+)_"})
    with pytest.raises(PedigreeError, match="is not a regular expression"):
        values(prepare={"speaker": "("})


def test_a_truncated_file_is_rejected_and_costs_no_other(tmp_path, raw):
    tiny.write(raw)
    stream = io.BytesIO()
    soundfile.write(stream, tiny.spoken("fa ho"), 16_000, format="FLAC")
    (raw / "anna_t.flac").write_bytes(stream.getvalue()[:2000])
    (raw / "anna_t.txt").write_text("fa ho")
    found = rejected(prepared(tmp_path).manifest)
    assert [*found] == ["anna_t.flac"]
