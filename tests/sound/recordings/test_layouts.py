"""Recordings and transcripts are found in the layouts in which people have them, and what does not fit is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from components.errors import PedigreeError
from components.sound.recordings import layouts
from components.sound.recordings.recording import Found


def laid(raw: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_text(text, encoding="utf-8")
    return raw


def read(found: Found) -> dict[str, list[tuple[str, str, str]]]:
    return {split: [(each.file, each.text, each.speaker) for each in own] for split, own in found.splits.items()}


def reasons(found: Found) -> dict[str, str]:
    return {each.file: each.reason for each in found.rejected}


def test_a_text_file_is_beside_each_sound_file(tmp_path):
    files = {"a.wav": "", "a.txt": "yes\n", "sub/b.FLAC": "", "sub/b.txt": "no", "README.txt": "about"}
    found = layouts.survey(laid(tmp_path, files))
    assert read(found) == {"train": [("a.wav", "yes\n", ""), ("sub/b.FLAC", "no", "")]}
    assert found.rejected == []


def test_folders_of_splits_are_splits(tmp_path):
    files = {f"{split}/x{suffix}": "yes" for split in ("Train", "dev", "testing") for suffix in (".mp3", ".txt")}
    assert {*layouts.survey(laid(tmp_path, files)).splits} == {"train", "val", "test"}


def test_a_sound_or_a_text_alone_is_rejected(tmp_path):
    files = {"a.wav": "", "a.txt": "yes", "b.wav": "", "sub/c.txt": "no", "d.pdf": "", "e.wav": "", "e.txt": ""}
    found = layouts.survey(laid(tmp_path, files))
    assert reasons(found) == {
        "b.wav": "no transcript: there is no .txt file of its name beside it",
        "sub/c.txt": "a transcript without a sound file of its name beside it",
        "d.pdf": "not part of the recordings and their transcripts",
    }
    assert [each.text for each in found.splits["train"]] == ["yes", ""]  # preparation rejects the empty one


def test_two_sound_files_of_one_text_are_an_error(tmp_path):
    with pytest.raises(PedigreeError, match=r"a\.flac and a\.wav have one transcript: remove one of them"):
        layouts.survey(laid(tmp_path, {"a.flac": "", "a.wav": "", "a.txt": "yes"}))


def test_two_texts_of_one_name_are_an_error(tmp_path):
    with pytest.raises(PedigreeError, match=r"a\.TXT and a\.txt are two transcripts of one name: remove one"):
        layouts.survey(laid(tmp_path, {"a.TXT": "no", "a.wav": "", "a.txt": "yes"}))


def test_librispeech_has_a_list_in_each_chapter(tmp_path):
    files = {}
    for part in ("train-clean-100", "dev-clean", "test-clean"):
        files[f"LibriSpeech/{part}/19/198/19-198.trans.txt"] = "19-198-0000 NORTHANGER ABBEY\n19-198-0001 THIS\n"
        files |= {f"LibriSpeech/{part}/19/198/19-198-000{number}.flac": "" for number in (0, 1)}
    files["LibriSpeech/SPEAKERS.TXT"] = ""
    found = layouts.survey(laid(tmp_path, files))
    first = ("LibriSpeech/train-clean-100/19/198/19-198-0000.flac", "NORTHANGER ABBEY", "19")
    assert read(found)["train"][0] == first
    assert {split: len(own) for split, own in found.splits.items()} == {"train": 2, "val": 2, "test": 2}
    assert [*reasons(found)] == ["LibriSpeech/SPEAKERS.TXT"]


def test_in_librispeech_a_line_or_a_recording_without_the_other_is_rejected(tmp_path):
    files = {"1/1/1-1.trans.txt": "1-1-0 YES\n1-1-1 NO\n", "1/1/1-1-0.flac": "", "1/1/1-1-2.flac": ""}
    found = layouts.survey(laid(tmp_path, files))
    assert reasons(found) == {
        "1/1/1-1.trans.txt:2": "a transcript without a sound file of its name",
        "1/1/1-1-2.flac": "no transcript: no .trans.txt file beside it has a line for it",
    }


def test_common_voice_has_tables_and_clips(tmp_path):
    head = "client_id\tpath\tsentence\tage\n"
    files = {
        "train.tsv": f'{head}ann\ta.mp3\tSay "yes.\t\nbob\tb.mp3\tNo.\t\n',
        "dev.tsv": f"{head}cid\tc\tnull\t\n",
        "test.tsv": f"{head}dan\td.mp3\tYes.\t\n",
        "validated.tsv": head,
        **{f"clips/{name}.mp3": "" for name in "abcx"},
    }
    found = layouts.survey(laid(tmp_path, files))
    assert read(found) == {
        "train": [("clips/a.mp3", 'Say "yes.', "ann"), ("clips/b.mp3", "No.", "bob")],
        "val": [("clips/c.mp3", "null", "cid")],
    }
    assert reasons(found) == {"test.tsv:2": "clips/ has no file of its name"}


def test_ljspeech_has_a_file_of_lines_with_bars(tmp_path):
    text = 'LJ1|He said "4|He said "four\n\nLJ2|Yes\nLJ3|No\n'
    files = {"metadata.csv": text, "wavs/LJ1.wav": "", "wavs/LJ2.flac": "", "wavs/LJ4.wav": ""}
    found = layouts.survey(laid(tmp_path, files))
    assert read(found) == {"train": [("wavs/LJ1.wav", 'He said "four', ""), ("wavs/LJ2.flac", "Yes", "")]}
    assert reasons(found) == {
        "metadata.csv:4": "wavs/ has no recording of its id",
        "wavs/LJ4.wav": "no transcript: metadata.csv has no line for it",
    }


def test_commas_in_place_of_bars_are_an_error_with_the_line(tmp_path):
    with pytest.raises(PedigreeError, match=r"metadata\.csv:1: there is no \| between the parts of this line"):
        layouts.survey(laid(tmp_path, {"metadata.csv": "LJ1,Yes\n", "wavs/LJ1.wav": ""}))


def manifest(*rows: dict) -> str:
    return "\n\n".join(json.dumps(row) for row in rows) + "\n"


def test_nemo_has_manifests_of_json_lines(tmp_path):
    files = {
        "train_manifest.json": manifest(
            {"audio_filepath": "audio/a.wav", "text": "yes", "duration": 1, "speaker": "ann"},
            {"audio_filename": str(tmp_path / "audio" / "b.wav"), "text": "no"},
        ),
        "test_manifest.json": manifest({"audio_filepath": "./audio/c.wav", "text": "yes"}),
        **{f"audio/{name}.wav": "" for name in "abc"},
    }
    found = layouts.survey(laid(tmp_path, files))
    assert read(found) == {
        "train": [("audio/a.wav", "yes", "ann"), ("audio/b.wav", "no", "")],
        "test": [("audio/c.wav", "yes", "")],
    }
    assert found.rejected == []


def test_a_speaker_of_a_manifest_may_be_any_number(tmp_path):
    rows = [{"audio_filepath": f"{number}.wav", "text": "yes", "speaker": number} for number in range(2)]
    found = layouts.survey(laid(tmp_path, {"train.json": manifest(*rows), "0.wav": "", "1.wav": ""}))
    assert [each.speaker for each in found.splits["train"]] == ["0", "1"]


def test_the_beginning_of_a_recording_is_no_whole_one_and_a_whole_one_may_have_an_offset_of_0(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.ones(16_000) / 2, 8000)
    rows = [{"audio_filepath": "a.wav", "text": "yes", "offset": 0.0, "duration": each} for each in (0.25, 2.0)]
    found = layouts.survey(laid(tmp_path, {"train.json": manifest(*rows)}))
    assert reasons(found) == {"train.json:1": "only its first 0.25 seconds are meant: cut the recording into files"}
    assert len(found.splits["train"]) == 1


def test_in_a_manifest_paths_that_do_not_exist_and_parts_of_recordings_are_rejected(tmp_path):
    rows = (
        {"audio_filepath": "a.wav", "text": "yes"},
        {"audio_filepath": "/home/ann/a.wav", "text": "yes"},
        {"audio_filepath": "../a.wav", "text": "yes"},
        {"audio_filepath": "b.wav", "text": "yes", "offset": 3.5},
        {"audio_filepath": "b.wav"},
        {"audio_filepath": 3, "text": None},
    )
    found = layouts.survey(laid(tmp_path, {"train.json": manifest(*rows), "a.wav": "", "b.wav": ""}))
    named = reasons(found)
    assert "no such file: " in named["train.json:3"]
    assert named["train.json:3"].endswith("; write paths relative to train.json")
    assert "no such file: " in named["train.json:5"]
    assert named["train.json:7"] == "offset is not 0: cut the recording into files"
    assert "it has no" in named["train.json:9"]
    assert "null" in named["train.json:11"]


def test_two_manifests_of_one_split_or_of_none_are_an_error(tmp_path):
    row = manifest({"audio_filepath": "a.wav", "text": "yes"})
    laid(tmp_path, {"train.json": row, "a.wav": ""})
    with pytest.raises(PedigreeError, match=r"the manifests train\.json and train_manifest\.json for train"):
        layouts.survey(laid(tmp_path, {"train_manifest.json": row}))
    (tmp_path / "train_manifest.json").rename(tmp_path / "more.json")
    with pytest.raises(PedigreeError, match=r"the names of more\.json say no split"):
        layouts.survey(tmp_path)


def sphinx(tmp_path: Path) -> Path:
    files = {
        "etc/an4_train.fileids": "clstk/ann/an1\nclstk/bob/an2\nclstk/bob/an9\n",
        "etc/an4_train.transcription": "<s> YES </s> (an1)\nGO ON (an2)\nno name\n",
        "etc/an4_test.fileids": "clstk/cid/an3\n",
        "etc/an4_test.transcription": "NO (an3)\n",
        "etc/an4.dic": "",
        **{f"feat/clstk/{name}.mfc": "" for name in ("ann/an1", "bob/an2", "cid/an3")},
    }
    return laid(tmp_path, files)


def test_sphinx_has_lists_and_cepstra_in_folders_of_speakers(tmp_path):
    found = layouts.survey(sphinx(tmp_path))
    assert [(file, text.strip(), who) for file, text, who in read(found)["train"]] == [
        ("feat/clstk/ann/an1.mfc", "YES", "ann"),
        ("feat/clstk/bob/an2.mfc", "GO ON", "bob"),
    ]
    assert {*found.splits} == {"train", "test"}
    assert reasons(found) == {
        "etc/an4_train.transcription:3": "the line does not end with the name of a recording in brackets",
        "etc/an4_train.fileids:3": "neither feat/ nor wav/ has a file of its name",
    }


def test_a_sphinx_list_needs_its_transcripts(tmp_path):
    (sphinx(tmp_path) / "etc" / "an4_test.transcription").unlink()
    with pytest.raises(PedigreeError, match=r"has etc/an4_test\.fileids and no etc/an4_test\.transcription"):
        layouts.survey(tmp_path)


def test_two_transcripts_of_one_recording_are_an_error_that_names_both(tmp_path):
    rows = [{"audio_filepath": "a.wav", "text": text} for text in ("yes", "no")]
    with pytest.raises(PedigreeError, match=r"a\.wav has two transcripts, train\.json:1 and train\.json:3"):
        layouts.survey(laid(tmp_path, {"train.json": manifest(*rows), "a.wav": ""}))


def test_a_folder_without_recordings_is_an_error_that_says_what_to_put_there(tmp_path):
    with pytest.raises(PedigreeError, match=r"no recordings with transcripts to train on: put a \.txt file beside"):
        layouts.survey(tmp_path)
    with pytest.raises(PedigreeError, match=r"\(a\.wav: no transcript"):
        layouts.survey(laid(tmp_path, {"a.wav": ""}))
