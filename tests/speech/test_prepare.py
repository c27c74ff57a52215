import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.contracts import Manifest
from components.errors import PedigreeError
from components.intake import file_names
from components.speech.decode import decode
from components.speech.prepare import SpeechFacts, load_split, prepare
from components.speech.words import speakers_of
from tests.speech import tiny
from tests.speech.values import parameters

PATTERN = parameters().prepare.speaker
SMALL = ("prepare.rate=8000", "prepare.seconds=0.25", "prepare.max_refused=0.9")


def sound(file: Path, seed: int, seconds: float = 0.2) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, tiny.tone("hold", seconds=seconds, seed=seed), tiny.RATE, subtype="PCM_16")


@pytest.fixture
def raw(tmp_path) -> Path:
    """Two words, ten speakers, each saying each word twice; no two sounds alike."""
    folder = tmp_path / "raw"
    names = [(word, speaker, take) for word in ("no", "yes") for speaker in range(10) for take in range(2)]
    for seed, (word, speaker, take) in enumerate(names):
        sound(folder / word / f"s{speaker}_nohash_{take}.wav", seed)
    return folder


@pytest.fixture
def run(raw, tmp_path) -> Callable[..., Manifest]:
    """Prepare `raw` into an empty tmp_path/out; nearly every file may be refused."""

    def run(*prepare_settings: str) -> Manifest:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return prepare(raw, out, parameters(*SMALL, *(f"prepare.{text}" for text in prepare_settings)))

    return run


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def names(out: Path) -> dict[str, list[str]]:
    return {split: file_names(out, split) for split in ("train", "val", "test")}


def reasons(manifest: Manifest) -> dict[str, str]:
    return {refusal.file: refusal.reason for refusal in manifest.refused}


def facts(manifest: Manifest) -> SpeechFacts:
    return SpeechFacts.model_validate(manifest.facts)


def lists(raw: Path, **parts: str) -> None:
    for name, text in parts.items():
        (raw / f"{name}_list.txt").write_text(text)


def test_every_row_is_the_sound_that_its_file_name_says_with_its_folders_label(raw, run, out):
    manifest = run()
    for split, files in names(out).items():
        data = load_split(out, split)
        assert len(data["clip"]) == len(data["label"]) == len(files) == manifest.splits[split].samples
        for clip, label, file in zip(data["clip"], data["label"], files, strict=True):
            assert np.array_equal(clip, decode((raw / file).read_bytes(), 8000, 0.25, 30, 0.1))
            assert facts(manifest).classes[label] == Path(file).parent.name
    every = [file for files in names(out).values() for file in files]
    assert sorted(every) == sorted(str(path.relative_to(raw)) for path in raw.rglob("*.wav"))
    assert manifest.refused == []


def test_the_facts_count_clips_and_speakers(run):
    found = facts(run("test_share=0.3", "val_share=0.2"))
    assert found.counts == {
        "test": {"no": 6, "yes": 6},
        "val": {"no": 4, "yes": 4},
        "train": {"no": 10, "yes": 10},
    }
    assert found.speakers == {"test": 3, "val": 2, "train": 5}
    assert (found.rate, found.seconds, found.classes) == (8000, 0.25, ["no", "yes"])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31 - 1), test=st.sampled_from([0.01, 0.2, 0.5]), val=st.sampled_from([0.01, 0.1, 0.5])
)
def test_no_speaker_is_in_two_splits_and_every_split_is_large_enough(run, out, seed, test, val):
    run(f"seed={seed}", f"test_share={test}", f"val_share={val}")
    files = names(out)
    spoken = {split: set(speakers_of(chosen, PATTERN)) for split, chosen in files.items()}
    assert sum(map(len, spoken.values())) == len(set.union(*spoken.values())) == 10
    assert len(files["test"]) >= test * 40
    assert len(files["val"]) >= val * (40 - len(files["test"]))


def test_another_seed_takes_other_speakers(run, out):
    chosen = set()
    for seed in range(5):
        run(f"seed={seed}")
        chosen.add(tuple(file_names(out, "test")))
    assert len(chosen) > 2


def test_a_speaker_that_is_added_hardly_moves_others(raw, run, out):
    run()
    before = set(speakers_of(file_names(out, "train"), PATTERN))
    for number, word in enumerate(("no", "yes")):
        sound(raw / word / "new_nohash_0.wav", 900 + number)
    run()
    assert len(before - set(speakers_of(file_names(out, "train"), PATTERN))) <= 1


@pytest.mark.parametrize(
    ("name", "speaker"),
    [
        ("yes/0a7c2a8d_nohash_3.wav", "0a7c2a8d"),
        ("seven/theo_12.wav", "theo"),
        ("yes/f2-en_us_0.flac", "f2-en_us"),
        ("yes/alice-1.wav", "alice"),
        ("yes/alice01.wav", "alice"),
        ("yes/alice (2).wav", "alice"),
        ("yes/s01_2.wav", "s01"),
        ("yes/yes_bob_3.wav", "bob"),
        ("0/0_jackson_49.wav", "jackson"),
        ("yes/yes-007.wav", "yes/yes-007.wav"),
        ("yes/yes1.wav", "yes/yes1.wav"),
        ("yes/Yes_1.wav", "yes/Yes_1.wav"),
        ("yes/yes (1).wav", "yes/yes (1).wav"),
        ("yes/hello.wav", "yes/hello.wav"),
        ("yes/_1.wav", "yes/_1.wav"),
        ("yes/7.wav", "yes/7.wav"),
    ],
)
def test_a_files_name_tells_the_speaker_and_a_file_without_one_is_its_own(name, speaker):
    assert speakers_of([name], PATTERN) == [speaker]


@pytest.mark.parametrize("name", ["clip_{}", "{}", "clip{}", "{word}_{}"])
def test_names_that_tell_of_nobody_leave_every_clip_on_its_own_and_the_numbers_say_so(raw, run, out, name):
    for number, path in enumerate(sorted(raw.rglob("*.wav"))):
        path.rename(path.with_name(name.format(number, word=path.parent.name) + ".wav"))
    manifest = run()
    assert facts(manifest).speaker == ""
    assert facts(manifest).speakers == {split: len(files) for split, files in names(out).items()}
    assert manifest.note == "no file name tells who speaks: a speaker may be in two splits"


def test_lists_answer_for_who_speaks_where(raw, run):
    for number, path in enumerate(sorted(raw.rglob("*.wav"))):
        path.rename(path.with_name(f"{number}.wav"))
    lists(raw, testing="no/0.wav\nyes/20.wav\n", validation="no/1.wav\nyes/21.wav\n")
    assert run().note == ""


def test_another_pattern_tells_other_speakers(raw, run, out):
    for path in raw.rglob("*.wav"):
        _, _, take = path.stem.split("_")
        path.rename(path.with_name(f"{take}-{path.stem[:2]}.wav"))
    run(r"speaker='-(?P<speaker>.*)'")
    assert facts(run(r"speaker='-(?P<speaker>.*)'")).speakers == {"test": 2, "val": 1, "train": 7}


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("'(?P<speaker>'", r"is not a regular expression \(.*unterminated"),
        ("'(.+)_'", "has no group named speaker"),
        ("''", "has no group named speaker"),
    ],
)
def test_a_pattern_that_cannot_tell_speakers_is_a_wrong_parameter(pattern, problem):
    with pytest.raises(PedigreeError, match=rf"prepare\.speaker = .*: {problem}"):
        parameters(f"prepare.speaker={pattern}")


def test_the_lists_are_obeyed(raw, run, out):
    lists(
        raw,
        testing="no/s0_nohash_1.wav\nyes/s3_nohash_0.wav\n",
        validation="yes/s3_nohash_1.wav\r\n\n./no/s4_nohash_0.wav\r\n",
    )
    manifest = run()
    assert names(out)["test"] == ["no/s0_nohash_1.wav", "yes/s3_nohash_0.wav"]
    assert names(out)["val"] == ["no/s4_nohash_0.wav", "yes/s3_nohash_1.wav"]
    assert manifest.splits["train"].samples == 36
    assert facts(manifest).speakers == {"test": 2, "val": 2, "train": 10}


@pytest.mark.parametrize(
    ("given_list", "split", "other"), [("testing", "test", "val"), ("validation", "val", "test")]
)
def test_one_list_alone_leaves_the_other_part_to_be_taken_by_speaker(raw, run, out, given_list, split, other):
    lists(raw, **{given_list: "no/s0_nohash_0.wav\nyes/s1_nohash_0.wav\n"})
    run()
    files = names(out)
    assert files[split] == ["no/s0_nohash_0.wav", "yes/s1_nohash_0.wav"]
    assert len(files[other]) >= 4
    assert not set(speakers_of(files[other], PATTERN)) & set(speakers_of(files["train"], PATTERN))


def test_lines_of_words_that_were_left_out_are_passed_over(raw, run, out):
    lists(raw, testing="no/s0_nohash_0.wav\nyes/s1_nohash_0.wav\nbed/s1_nohash_0.wav\n")
    run()
    assert len(file_names(out, "test")) == 2


def test_background_noise_is_not_a_word(raw, run):
    sound(raw / "_background_noise_" / "white.wav", 999, seconds=5)
    (raw / "_background_noise_" / "README.md").write_text("noise")
    manifest = run()
    assert facts(manifest).classes == ["no", "yes"]
    assert manifest.refused == []


def test_files_of_speech_commands_and_of_the_system_are_passed_over(raw, run):
    for name in ("README.md", "LICENSE", ".DS_Store", "yes/.DS_Store", "yes/Thumbs.db", "desktop.ini"):
        (raw / name).write_text("x")
    assert run().refused == []


def test_clips_that_no_person_spoke_are_called_synthetic(raw, run):
    assert run().note == ""
    (raw / "SYNTHETIC.txt").write_text("No person spoke these clips.")
    assert run().note == "synthetic speech"


def test_files_that_cannot_be_used_are_left_out_with_the_reason(raw, run):
    yes = raw / "yes"
    for name in ("s1_nohash_0.wav", "s2_nohash_0.wav", "s3_nohash_0.wav", "s4_nohash_0.wav", "s5_nohash_0.wav"):
        (yes / name).unlink()
    (yes / "s1_nohash_0.wav").write_bytes(b"")
    (yes / "s2_nohash_0.wav").write_text("not a sound")
    soundfile.write(yes / "s3_nohash_0.wav", np.zeros(2000), 8000)
    soundfile.write(yes / "s4_nohash_0.wav", np.sign(tiny.tone("hold")), 8000)
    sound(yes / "s5_nohash_0.wav", 800, seconds=2)
    (yes / "folder").mkdir()
    (yes / "gone.wav").symlink_to("nowhere")
    os.mkfifo(yes / "pipe.wav")
    (raw / "notes.csv").write_text("a,b")
    manifest = run("max_seconds=1")
    assert reasons(manifest) == {
        "notes.csv": "outside the words' folders",
        "yes/folder": "a folder inside a class folder",
        "yes/gone.wav": "not a file",
        "yes/pipe.wav": "not a file",
        "yes/s1_nohash_0.wav": "zero bytes",
        "yes/s2_nohash_0.wav": "not audio",
        "yes/s3_nohash_0.wav": "silent",
        "yes/s4_nohash_0.wav": "clipped: 100% of its samples are at full scale, over max_clipped 0.1",
        "yes/s5_nohash_0.wav": "too long: 2.0 seconds is over max_seconds 1",
    }
    assert sum(split.samples for split in manifest.splits.values()) == 35


@pytest.mark.parametrize("name", [b"\xff_1.wav", b"a\nb_1.wav"])
def test_a_name_that_cannot_stand_in_a_list_is_refused(raw, run, name):
    shutil.copy(raw / "yes/s0_nohash_0.wav", os.fsencode(raw / "yes") + b"/" + name)
    manifest = run()
    assert [refusal.reason for refusal in manifest.refused] == ["its name is not UTF-8, or has a line break in it"]
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_words_in_any_language_are_kept(raw, run):
    (raw / "yes").rename(raw / "да нет")
    assert facts(run()).classes == ["no", "да нет"]


def test_a_clip_that_is_in_an_earlier_split_is_refused(raw, run):
    lists(raw, testing="no/s0_nohash_0.wav\nyes/s0_nohash_0.wav\n")
    samples, _ = soundfile.read(raw / "no/s0_nohash_0.wav", dtype="int16")
    soundfile.write(raw / "yes" / "s9_nohash_7.flac", samples, 8000)
    assert reasons(run()) == {"yes/s9_nohash_7.flac": "duplicate of the test clip no/s0_nohash_0.wav"}


def test_equal_clips_inside_one_split_stay(raw, run, out):
    lists(raw, testing="no/s0_nohash_0.wav\nno/s0_nohash_1.wav\nyes/s0_nohash_0.wav\n")
    shutil.copy(raw / "no/s0_nohash_0.wav", raw / "no/s0_nohash_1.wav")
    assert run().refused == []
    assert len(file_names(out, "test")) == 3


def test_the_same_files_give_the_same_bytes_whatever_their_order_on_the_disk(raw, run, out, tmp_path):
    (raw / "yes" / "broken_1.wav").write_bytes(b"")
    first, written = run(), {path.name: path.read_bytes() for path in out.iterdir()}
    for path in sorted(raw.rglob("*.wav"), reverse=True):
        copy = tmp_path / "copy" / path.relative_to(raw)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.rmtree(raw)
    (tmp_path / "copy").rename(raw)
    assert run() == first
    assert {path.name: path.read_bytes() for path in out.iterdir()} == written
    assert sorted(written) == sorted(
        f"{split}.{what}" for split in ("train", "val", "test") for what in ("clips.npy", "labels.npy", "files.txt")
    )


def emptied(raw: Path) -> None:
    shutil.rmtree(raw)


def two_speakers(raw: Path) -> None:
    for number, path in enumerate(sorted(raw.rglob("*.wav"))):
        path.rename(path.with_name(f"{'ann' if number % 2 else 'bob'}_{number}.wav"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (emptied, r"raw: there are no sound files: run `pedigree data`, or put wav or flac files in .*raw/<word>/"),
        (lambda raw: (raw / "up").mkdir(), r"raw/up: no files there: put some in, or remove the folder"),
        (lambda raw: shutil.rmtree(raw / "no"), r"raw has one word, yes: put a folder with clips of another"),
        (
            two_speakers,
            r"raw: no speaker is left to train on after val, for file names tell of 1 there: name val's clips in "
            r".*raw/validation_list\.txt, or set prepare\.speaker to what tells speakers apart",
        ),
        (
            lambda raw: [path.unlink() for path in raw.glob("yes/s[1-9]*")],
            r"raw: val gets no clip of yes: set another prepare\.seed or prepare\.speaker, larger shares, or name",
        ),
        (
            lambda raw: lists(raw, testing="no/s0_nohash_0.wav\n"),
            r"raw: test gets no clip of yes: name some in .*raw/testing_list\.txt",
        ),
        (lambda raw: lists(raw, testing="\n"), r"raw: test gets no clip of no, yes: name some in"),
        (
            lambda raw: lists(raw, testing="no/s0_nohash_0.wav\n\nyes/s0_nohash_77.wav\n"),
            r"raw/testing_list\.txt:3: there is no file yes/s0_nohash_77\.wav: put it there, or remove the line",
        ),
        (
            lambda raw: lists(raw, testing="no/s0_nohash_0.wav\n", validation="no/s0_nohash_0.wav\n"),
            r"raw/validation_list\.txt:1: no/s0_nohash_0\.wav is in .*raw/testing_list\.txt:1 already: remove one",
        ),
        (
            lambda raw: (raw / "testing_list.txt").write_bytes(b"no/\xff.wav\n"),
            r"raw/testing_list\.txt: byte 3 is not UTF-8: save the file as UTF-8",
        ),
        (
            lambda raw: [path.write_bytes(b"broken") for path in raw.glob("yes/*")],
            r"raw: test has no clip left of yes: all were refused or went to another split: add clips, or",
        ),
    ],
)
def test_folders_and_lists_that_do_not_fit_are_refused_with_the_place_and_the_remedy(raw, run, change, message):
    change(raw)
    with pytest.raises(PedigreeError, match=message):
        run()


def test_too_many_refusals_stop_with_the_commonest_reasons_and_the_whole_list(raw, run, tmp_path):
    for path in raw.glob("*/s[0-4]_*"):
        path.write_bytes(b"broken" if path.parent.name == "no" else b"")
    with pytest.raises(PedigreeError) as error:
        run("max_refused=0.4")
    assert str(error.value).splitlines() == [
        f"{raw}: 20 of 40 files cannot be used, more than prepare.max_refused 0.4:",
        "  10 like no/s0_nohash_0.wav: not audio",
        "  10 like yes/s0_nohash_0.wav: zero bytes",
        f"mend or remove them (the whole list is in {tmp_path / 'refused.json'}), or raise prepare.max_refused",
    ]
    assert len(json.loads((tmp_path / "refused.json").read_text())) == 20
