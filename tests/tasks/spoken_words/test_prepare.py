import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.contracts import Manifest
from components.datasets.ingest import file_names
from components.errors import PedigreeError
from components.sound.decode import decode
from components.tasks.spoken_words.prepare import SpeechFacts, load_split, prepare
from components.tasks.spoken_words.words import speakers_of
from tests.tasks.spoken_words import tiny
from tests.tasks.spoken_words.values import parameters

PATTERN = parameters().prepare.speaker
SMALL = ("prepare.rate=8000", "prepare.seconds=0.25", "prepare.max_rejected=0.9")


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
    """Prepare `raw` into an empty tmp_path/out; nearly every file may be rejected."""

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
    return {rejection.file: rejection.reason for rejection in manifest.rejected}


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
    assert manifest.rejected == []


def test_the_facts_count_clips_and_speakers(run):
    found = facts(run("test_share=0.3", "val_share=0.2"))
    assert found.counts == {
        "test": {"no": 6, "yes": 6},
        "val": {"no": 4, "yes": 4},
        "train": {"no": 10, "yes": 10},
    }
    assert found.speakers == {"test": 3, "val": 2, "train": 5}
    assert (found.rate, found.seconds, found.classes) == (8000, 0.25, ["no", "yes"])


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    assert manifest.note == "file names do not identify speakers: a speaker may be in two splits"


def test_lists_answer_for_who_speaks_where(raw, run):
    for number, path in enumerate(sorted(raw.rglob("*.wav"))):
        path.rename(path.with_name(f"{number}.wav"))
    lists(raw, testing="no/0.wav\nyes/20.wav\n", validation="no/1.wav\nyes/21.wav\n")
    assert run().note == ""


def test_speakers_that_the_lists_put_into_train_too_are_counted_in_a_warning_and_in_the_note(raw, run, caplog):
    apart = "".join(f"{word}/s{{0}}_nohash_{take}.wav\n" for word in ("no", "yes") for take in range(2))
    lists(raw, testing="no/s0_nohash_0.wav\n" + apart.format(1), validation=apart.format(2))
    with caplog.at_level(logging.WARNING, "pedigree.prepare"):
        assert run().note == "1 of 2 speakers of test are in train, too"
    assert "1 of 2 speakers of test are in train, too: results say little of other people" in caplog.text
    lists(raw, testing=apart.format(1))
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


def test_clips_that_are_split_anew_ignore_the_lists_and_each_number_draws_other_speakers(raw, run, out):
    lists(
        raw,
        testing="no/s0_nohash_0.wav\nyes/s1_nohash_0.wav\n",
        validation="no/s2_nohash_0.wav\nyes/s3_nohash_0.wav\n",
    )
    assert run().drawn == ""
    draws = []
    for number in (1, 2, 3):
        manifest = run(f"resplit={number}")
        files = names(out)
        spoken = {split: set(speakers_of(chosen, PATTERN)) for split, chosen in files.items()}
        assert sum(map(len, spoken.values())) == len(set.union(*spoken.values())) == 10
        assert manifest.drawn == "8 of 40 clips, by 2 of 10 speakers"
        draws.append(tuple(files["test"]))
    assert len(set(draws)) == 3
    (raw / files["test"][0]).write_text("no sound")
    assert run("resplit=3").drawn == "8 of 40 clips, by 2 of 10 speakers, of which 7 can be used,"


def test_speakers_that_names_do_not_tell_are_noted_when_lists_are_ignored(raw, run):
    for number, path in enumerate(sorted(raw.rglob("*.wav"))):
        path.rename(path.with_name(f"{number}.wav"))
    lists(raw, testing="no/0.wav\nyes/20.wav\n", validation="no/1.wav\nyes/21.wav\n")
    assert run("resplit=1").note == "file names do not identify speakers: a speaker may be in two splits"


def test_lines_of_words_that_were_left_out_are_passed_over(raw, run, out):
    lists(raw, testing="no/s0_nohash_0.wav\nyes/s1_nohash_0.wav\nbed/s1_nohash_0.wav\n")
    run()
    assert len(file_names(out, "test")) == 2


def test_lines_of_words_that_have_no_folder_are_counted_and_a_word_like_one_that_has_is_quoted(raw, run, caplog):
    lists(raw, testing="no/s0_nohash_0.wav\nyes/s1_nohash_0.wav\nbed/s1_nohash_0.wav\nYes/s2_nohash_0.wav\n")
    with caplog.at_level(logging.WARNING, "pedigree.prepare"):
        run()
    assert caplog.messages[0].endswith(
        "testing_list.txt: 2 of 4 lines are passed over, as their words have no folder: 'Yes' (there is 'yes'), bed"
    )


def test_lists_from_windows_with_backslashes_are_obeyed(raw, run, out):
    lists(raw, testing="no\\s0_nohash_1.wav\r\n.\\yes\\s3_nohash_0.wav\r\n")
    run()
    assert names(out)["test"] == ["no/s0_nohash_1.wav", "yes/s3_nohash_0.wav"]


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("folder", "written"), [(NFC, NFD), (NFD, NFC)])
def test_a_word_in_two_spellings_of_unicode_is_one_word(raw, run, out, folder, written):
    (raw / "yes").rename(raw / folder)
    lists(raw, testing=f"no/s0_nohash_1.wav\n{written}/s3_nohash_0.wav\n")
    manifest = run()
    assert facts(manifest).classes == [NFC, "no"]
    assert set(names(out)["test"]) == {"no/s0_nohash_1.wav", f"{folder}/s3_nohash_0.wav"}
    assert facts(manifest).counts["test"] == {NFC: 1, "no": 1}


def test_a_speaker_in_two_spellings_of_unicode_is_one_speaker():
    assert len(set(speakers_of([f"yes/{NFC}_1.wav", f"no/{NFD}_2.wav"], PATTERN))) == 1
    assert speakers_of([f"{NFD}/{NFC}_anna_1.wav"], PATTERN) == ["anna"]


def test_two_folders_of_one_word_are_an_error_that_shows_how_they_differ(raw, run):
    shutil.copytree(raw / "yes", raw / "yes ")
    with pytest.raises(PedigreeError, match=r"raw: the folders 'yes' and 'yes ' have the same name but for"):
        run()


def test_a_listed_file_that_is_there_in_another_case_is_quoted_with_that_one(raw, run):
    lists(raw, testing="no/s0_nohash_1.WAV\n")
    with pytest.raises(PedigreeError, match=r"no file 'no/s0_nohash_1.WAV' \(there is 'no/s0_nohash_1.wav'\): add"):
        run()


def test_sounds_in_the_layout_of_images_are_an_error_that_says_what_to_do(raw, run):
    for split in ("Train", "test"):
        for word in ("no", "yes"):
            shutil.copytree(raw / word, raw / split / word)
    for word in ("no", "yes"):
        shutil.rmtree(raw / word)
    with pytest.raises(
        PedigreeError,
        match=r"raw: Train, test hold folders of words, which is the layout of images: put the words' folders "
        r"directly into .*raw, and list the clips of test and val, .*, in testing_list\.txt and validation_list",
    ):
        run()


def test_words_one_folder_too_deep_are_an_error_that_says_where_they_belong(raw, run, tmp_path):
    raw.rename(tmp_path / "speech_commands")
    raw.mkdir()
    (tmp_path / "speech_commands").rename(raw / "speech_commands")
    with pytest.raises(PedigreeError, match=r"raw: speech_commands has only folders and no sound files: put"):
        run()


def test_train_and_test_are_words_where_they_hold_sounds(raw, run):
    (raw / "no").rename(raw / "test")
    (raw / "yes").rename(raw / "train")
    assert facts(run()).classes == ["test", "train"]


def renamed(raw: Path, name: str) -> None:
    """Rename each clip by its number, its speaker, the speaker's take and book, and a copy's number."""
    for n, path in enumerate(sorted(raw.rglob("*.wav"))):
        who, take = n // 2 % 10, n // 20 * 2 + n % 2
        copy = f" ({take})" if take else ""
        path.rename(path.with_name(name.format(n=n, who=who, book=n % 2, copy=copy) + ".wav"))


def test_what_is_taken_for_speakers_is_reported_with_counts(raw, run, caplog):
    (raw / "yes/s0_nohash_0.wav").rename(raw / "yes/hello.wav")
    with caplog.at_level(logging.INFO, "pedigree.prepare"):
        run()
    assert re.fullmatch(
        r".*raw: 10 speakers, 3 to 4 clips each, such as 's\d' of no/s\d_nohash_\d\.wav; "
        "1 without a speaker counts as a speaker",
        caplog.messages[0],
    )
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", ["steph{who}_{n}", "f{who}-en_us_{n}", "{who}{who}a7c2_nohash_{n}"])
def test_speakers_with_similar_names_are_not_doubted(raw, run, caplog, name):
    renamed(raw, name)
    for number, word in enumerate(("no", "yes")):
        sound(raw / word / "steph_nohash_0.wav", 300 + number)
    with caplog.at_level(logging.WARNING, "pedigree.prepare"):
        run()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("name", "doubt"),
    [
        ("p{who}_{n:03}_mic1", "there are nearly as many speakers as clips, 40 and 40"),
        ("127{who}-12{book}-{n:04}", "the names of 20 speakers begin in 10 ways, 2 with '1270'"),
        ("anna{who}{copy}", "no/anna0.wav is taken for one of 'anna', and 'anna0' for another speaker"),
    ],
)
def test_speakers_that_are_probably_fewer_people_are_doubted(raw, run, caplog, name, doubt):
    renamed(raw, name)
    with caplog.at_level(logging.WARNING, "pedigree.prepare"):
        run()
    assert f"raw: {doubt}: one person may be several speakers, and in two splits: set" in caplog.text


def test_background_noise_is_not_a_word(raw, run):
    sound(raw / "_background_noise_" / "white.wav", 999, seconds=5)
    (raw / "_background_noise_" / "README.md").write_text("noise")
    manifest = run()
    assert facts(manifest).classes == ["no", "yes"]
    assert manifest.rejected == []


def test_files_of_speech_commands_and_of_the_system_are_passed_over(raw, run):
    for name in ("README.md", "LICENSE", ".DS_Store", "yes/.DS_Store", "yes/Thumbs.db", "desktop.ini"):
        (raw / name).write_text("x")
    (raw / "yes/s1_nohash_0.wav:Zone.Identifier").write_text("[ZoneTransfer]")
    for folder in ("__MACOSX/yes", "@eaDir/yes", "$RECYCLE.BIN/S-1-5-21", "System Volume Information/a"):
        (raw / folder).mkdir(parents=True)
        (raw / folder / "._a.wav").write_text("x")
    manifest = run()
    assert manifest.rejected == []
    assert manifest.ignored == ["LICENSE", "README.md"], "those of a system are listed by the stage"
    assert facts(manifest).classes == ["no", "yes"]


def test_clips_that_no_person_spoke_are_called_synthetic(raw, run):
    assert run().note == ""
    (raw / "SYNTHETIC.txt").write_text("No person spoke these clips.")
    assert run().note == "synthetic speech"


def test_clips_that_are_cut_are_counted_and_noted(raw, run, caplog):
    assert "cut" not in run().note
    for take, seconds in enumerate((0.25, 0.26, 2)):
        sound(raw / "yes" / f"s{take}_nohash_0.wav", 800 + take, seconds)
    note = "2 of 40 clips are longer than prepare.seconds (0.25), and cut at the end"
    assert run().note == note
    assert f"raw: {note}: set it to the length of most clips" in caplog.messages


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
    os.mkfifo(yes / "pipe.wav")
    (raw / "notes.csv").write_text("a,b")
    manifest = run("max_seconds=1")
    assert reasons(manifest) == {
        "notes.csv": "outside the words' folders",
        "yes/folder": "a folder inside a class folder",
        "yes/pipe.wav": "not a file",
        "yes/s1_nohash_0.wav": "zero bytes",
        "yes/s2_nohash_0.wav": "not audio",
        "yes/s3_nohash_0.wav": "silent",
        "yes/s4_nohash_0.wav": "clipped: 100% of its samples are at full scale, over max_clipped 0.1",
        "yes/s5_nohash_0.wav": "too long: 2.0 seconds is over max_seconds 1",
    }
    assert sum(split.samples for split in manifest.splits.values()) == 35


@pytest.mark.parametrize("name", ["testing_list.txt", "validation_list.txt"])
def test_a_list_that_is_a_link_to_nothing_is_an_error_and_does_not_count_as_absent(raw, run, name):
    (raw / name).symlink_to("nowhere")
    with pytest.raises(PedigreeError, match=f"{name} is a link to nothing: bring back the file that it links to"):
        run()


def test_words_in_any_language_are_kept(raw, run):
    (raw / "yes").rename(raw / "да нет")
    assert facts(run()).classes == ["no", "да нет"]


def test_a_clip_that_is_in_an_earlier_split_is_rejected(raw, run):
    lists(raw, testing="no/s0_nohash_0.wav\nyes/s0_nohash_0.wav\n")
    samples, _ = soundfile.read(raw / "no/s0_nohash_0.wav", dtype="int16")
    soundfile.write(raw / "yes" / "s9_nohash_7.flac", samples, 8000)
    assert reasons(run()) == {"yes/s9_nohash_7.flac": "duplicate of the test clip no/s0_nohash_0.wav"}


def test_equal_clips_inside_one_split_stay(raw, run, out):
    lists(raw, testing="no/s0_nohash_0.wav\nno/s0_nohash_1.wav\nyes/s0_nohash_0.wav\n")
    shutil.copy(raw / "no/s0_nohash_0.wav", raw / "no/s0_nohash_1.wav")
    assert run().rejected == []
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
        (lambda raw: shutil.rmtree(raw / "no"), r"raw has only the word yes: add a folder with clips of another"),
        (
            two_speakers,
            r"raw: no speaker is left to train on after val, as file names have 1 there: list val's clips in "
            r".*raw/validation_list\.txt, or set prepare\.speaker to a pattern of more speakers",
        ),
        (
            lambda raw: [path.unlink() for path in raw.glob("yes/s[1-9]*")],
            r"raw: val gets no clip of yes: set another prepare\.seed or prepare\.speaker, larger shares, or list",
        ),
        (
            lambda raw: lists(raw, testing="no/s0_nohash_0.wav\n"),
            r"raw: test gets no clip of yes: list some in .*raw/testing_list\.txt",
        ),
        (lambda raw: lists(raw, testing="\n"), r"raw: test gets no clip of no, yes: list some in"),
        (
            lambda raw: lists(raw, testing="no/s0_nohash_0.wav\n\nyes/s0_nohash_77.wav\n"),
            r"raw/testing_list\.txt:3: there is no file yes/s0_nohash_77\.wav: add it, or remove the line",
        ),
        (
            lambda raw: lists(raw, testing="no/s0_nohash_0.wav\n", validation="no/s0_nohash_0.wav\n"),
            r"raw/validation_list\.txt:1: no/s0_nohash_0\.wav is already in .*raw/testing_list\.txt:1: remove one",
        ),
        (
            lambda raw: (raw / "testing_list.txt").write_bytes(b"no/\xff.wav\n"),
            r"raw/testing_list\.txt: byte 3 is not UTF-8: save the file as UTF-8",
        ),
        (
            lambda raw: [path.write_bytes(b"broken") for path in raw.glob("yes/*")],
            r"raw: test has no clip left of yes: all were rejected or went to another split: add clips, or",
        ),
    ],
)
def test_folders_and_lists_that_do_not_fit_are_rejected_with_the_place_and_the_remedy(raw, run, change, message):
    change(raw)
    with pytest.raises(PedigreeError, match=message):
        run()


def test_too_many_refusals_stop_with_the_commonest_reasons_and_the_whole_list(raw, run, tmp_path):
    for path in raw.glob("*/s[0-4]_*"):
        path.write_bytes(b"broken" if path.parent.name == "no" else b"")
    with pytest.raises(PedigreeError) as error:
        run("max_rejected=0.4")
    assert str(error.value).splitlines() == [
        f"{raw}: 20 of 40 files cannot be used, more than prepare.max_rejected 0.4:",
        "  10 like no/s0_nohash_0.wav: not audio",
        "  10 like yes/s0_nohash_0.wav: zero bytes",
        f"repair or remove them (all are listed in {tmp_path / 'rejected.json'}), or raise prepare.max_rejected",
    ]
    assert len(json.loads((tmp_path / "rejected.json").read_text())) == 20
