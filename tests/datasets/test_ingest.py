import base64
import json
import logging
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts import RejectedFile
from components.datasets import arrays, ingest, raw_files, readers
from components.datasets.ingest import (
    Sample,
    Unusable,
    contents,
    digest,
    file_names,
    rejections,
    sent,
    split_writer,
    writing,
)
from components.errors import PedigreeError
from components.runtime import progress

COLUMNS = {"waves": (np.int16, (4,)), "lengths": (np.int32, ())}


def clip(raw: Path, file: str) -> Sample:
    """A raw file of up to four small numbers is a padded row, how many they were, and their sum."""
    wave = np.frombuffer(contents(raw, file, "audio"), np.int8).astype(np.int16)
    if not len(wave):
        raise Unusable("zero bytes")
    if len(wave) > 4:
        raise Unusable(f"too long: {len(wave)} samples")
    padded = np.pad(wave, (0, 4 - len(wave)))
    rows = {"waves": padded, "lengths": np.array(len(wave), np.int32)}
    return Sample(rows, digest(padded), np.array([wave.sum()], np.uint64))


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    folder = tmp_path / "build" / "prepared"
    folder.mkdir(parents=True)
    return folder


def write(raw: Path, **files: list[int]) -> None:
    for name, numbers in files.items():
        (raw / name).write_bytes(bytes(numbers))


def prepare(raw: Path, out: Path, limit: float = 0.9, read=None, **splits: list[str]):
    """Write splits of files, all of class 1, in the order that they must have; give parts and rejections."""
    parts = {}
    total = sum(len(files) for files in splits.values())
    with split_writer("clip", raw, out, read or (lambda file: clip(raw, file)), total) as writer:
        for split in [name for name in ingest.ORDER if name in splits]:
            with writing(out, split, COLUMNS) as part:
                writer.fill(part, 1, splits[split])
            parts[split] = part
    return parts, {rejection.file: rejection.reason for rejection in writer.rejected(limit)}


def test_each_file_becomes_one_row_of_every_array_in_the_order_given(raw, out):
    write(raw, a=[1, 2], b=[3], c=[4, 5, 6, 7])
    parts, rejected = prepare(raw, out, test=["c", "a", "b"])
    assert arrays.load(out / "test.waves.npy").tolist() == [[4, 5, 6, 7], [1, 2, 0, 0], [3, 0, 0, 0]]
    assert arrays.load(out / "test.lengths.npy").tolist() == [4, 2, 1]
    assert arrays.load(out / "test.labels.npy").tolist() == [1, 1, 1]
    assert file_names(out, "test") == ["c", "a", "b"]
    assert rejected == {}
    assert parts["test"].sums.tolist() == [28]
    assert ingest.class_counts(parts, ["no", "yes"]) == {"test": {"no": 0, "yes": 3}}


def test_rows_stand_in_order_however_long_each_file_takes(raw, out):
    files = [f"{number:03d}" for number in range(100)]
    for number, file in enumerate(files):
        (raw / file).write_bytes(bytes([number]))

    def slow(file: str) -> Sample:
        time.sleep(0.02 if int(file) % 30 == 0 else 0)
        return clip(raw, file)

    prepare(raw, out, read=slow, test=files)
    assert arrays.load(out / "test.waves.npy")[:, 0].tolist() == list(range(100))


def test_files_are_read_only_a_little_ahead_of_what_is_written(raw, out):
    files = [f"{number:04d}" for number in range(1000)]
    for file in files:
        (raw / file).write_bytes(b"\1")
    started, ahead = [], []

    def counted(file: str) -> Sample:
        started.append(file)
        return clip(raw, file)

    with (
        split_writer("clip", raw, out, counted, len(files)) as writer,
        writing(out, "train", COLUMNS) as part,
    ):
        add = part.add
        part.add = lambda *row: ahead.append(len(started) - part.rows) or add(*row)
        writer.fill(part, 0, files)
    assert part.rows == 1000
    assert max(ahead) <= (readers.READERS + 2) * readers.GROUP


def test_no_more_files_are_taken_than_it_needs_for_the_rows_that_are_wanted(raw, out):
    write(raw, a=[1], b=[], c=[], d=[2], e=[3], f=[4])
    with split_writer("clip", raw, out, lambda file: clip(raw, file), 6) as writer:
        with writing(out, "val", COLUMNS) as part:
            assert writer.fill(part, 0, list("abcdef"), wanted=3) == 5
        assert file_names(out, "val") == ["a", "d", "e"]
        with writing(out, "train", COLUMNS) as part:
            assert writer.fill(part, 0, ["f", "b"], wanted=3) == 2
        assert file_names(out, "train") == ["f"]


def test_what_an_earlier_split_holds_is_rejected_in_a_later_one_and_named(raw, out):
    write(raw, a=[1], b=[2], c=[1], d=[3], e=[3], f=[2])
    _, rejected = prepare(raw, out, test=["a", "b"], val=["c", "d"], train=["e", "f"])
    assert rejected == {
        "c": "duplicate of the test clip a",
        "e": "duplicate of the val clip d",
        "f": "duplicate of the test clip b",
    }
    assert [file_names(out, split) for split in ingest.ORDER] == [["a", "b"], ["d"], []]


def test_equal_samples_inside_one_split_stay(raw, out):
    write(raw, a=[1], b=[1], c=[1])
    assert prepare(raw, out, test=["a", "b"], val=["c"])[1] == {"c": "duplicate of the test clip a"}
    assert file_names(out, "test") == ["a", "b"]


def test_a_splits_hash_changes_with_its_arrays_and_its_labels_and_not_with_its_files_names(raw, out):
    write(raw, a=[1, 2], b=[1, 2], c=[1, 2, 0])  # c has the same wave, and another length
    hashes = [prepare(raw, out, test=[file])[0]["test"].described().sha256 for file in "abc"]
    with (
        split_writer("clip", raw, out, lambda file: clip(raw, file), 1) as writer,
        writing(out, "test", COLUMNS) as part,
    ):
        writer.fill(part, 0, ["a"])
    assert hashes[0] == hashes[1]
    assert len({*hashes, part.described().sha256}) == 3
    assert part.described().samples == 1


def test_what_is_no_file_is_rejected_with_the_reason(raw, out):
    write(raw, a=[1])
    (raw / "folder").mkdir()
    (raw / "gone").symlink_to("nowhere")
    os.mkfifo(raw / "pipe")
    with (raw / "large").open("wb") as file:
        file.truncate(ingest.LARGEST_FILE + 1)
    assert prepare(raw, out, test=["a", "folder", "gone", "pipe", "large"])[1] == {
        "folder": "a folder inside a class folder",
        "gone": "not a file",
        "large": "not audio: over a gigabyte",
        "pipe": "not a file",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "a Git LFS pointer, not its file: run `git lfs pull`",
        ),
        (
            "version https://git-lfs.github.com/spec/v1\r\noid sha256:00\r\nsize 1\r\n",
            "a Git LFS pointer, not its file: run `git lfs pull`",
        ),
        (
            "\ufeffversion https://hawser.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "a Git LFS pointer, not its file: run `git lfs pull`",
        ),
        ("/annex/objects/SHA256E-s9--00.png\n", "a git-annex pointer, not its file: run `git annex get`"),
    ],
)
def test_a_pointer_to_a_file_that_was_not_downloaded_is_named_in_the_folder_and_in_a_request(tmp_path, text, said):
    (tmp_path / "a.wav").write_bytes(text.encode())
    pointers = (text.encode(), base64.b64encode(text.encode()).decode())
    for read in (
        lambda: contents(tmp_path, "a.wav", "audio"),
        *(partial(sent, each, "audio") for each in pointers),
    ):
        with pytest.raises(Unusable) as error:
            read()
        assert str(error.value) == said


@pytest.mark.parametrize(
    "url",
    [
        "data:;base64,YSxi",
        "data:audio/wav;base64,YSxi",
        " \nDATA:audio/wav; rate=8000 ;\tBase64 ,YSxi",
        "data:audio/wav;base64;BASE64,YS%78i",
        "data:,a,b",
        "data:base64,a%2Cb",
        "data:text/plain;charset=utf-8,a,b",
        "data:audio/wav;base64;x,a,b",
    ],
)
def test_a_data_url_is_base64_if_the_last_word_before_its_comma_says_so_and_else_percent_encoded(url):
    assert sent(url, "audio") == b"a,b"


@pytest.mark.timeout(30)  # a quadratic search would take hours
@pytest.mark.parametrize("url", ["data:" + " " * 10**6, "data:" + ";base64 " * 10**5, " " * 10**6 + "data:"])
def test_a_data_url_that_never_has_its_comma_is_rejected_at_once(url):
    with pytest.raises(Unusable, match="the text is neither base64 nor a data URL"):
        sent(url, "audio")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_rejected(raw, out):
    write(raw, a=[1], b=[2])
    (raw / "b").chmod(0)
    assert prepare(raw, out, test=["a", "b"])[1] == {"b": "unreadable: Permission denied"}


def test_names_in_any_language_are_kept(raw, out):
    name = "Фото 1\u202fPM \u2028é.wav"
    (raw / name).write_bytes(b"\2")
    prepare(raw, out, test=[name])
    assert file_names(out, "test") == [name]


def test_what_was_rejected_is_one_line_with_the_commonest_reason_first():
    reasons = {"a": "zero bytes", "b": "duplicate of the test clip x", "c": "duplicate of the test clip y"}
    line = rejections([RejectedFile(file=file, reason=reason) for file, reason in reasons.items()])
    assert line == "3 files rejected: 2 duplicate of the test clip (such as b), 1 zero bytes (such as a)"


def test_too_many_refusals_stop_with_the_commonest_reasons_and_the_whole_list(raw, out):
    write(raw, a=[1], b=[2], c=[1], d=[2], e=[0] * 5, f=[0] * 6, g=[0] * 7, h=[])
    splits = {"test": ["a", "b"], "train": ["c", "d", "e", "f", "g", "h"]}
    with pytest.raises(PedigreeError) as error:
        prepare(raw, out, limit=0.7, **splits)
    assert str(error.value).splitlines() == [
        f"{raw}: 6 of 8 files cannot be used, more than prepare.max_rejected 0.7:",
        "  3 like e: too long: 5 samples",
        "  2 like c: duplicate of the test clip a",
        "  1 like h: zero bytes",
        f"repair or remove them (all are listed in {out.parent}/rejected.json), or raise prepare.max_rejected",
    ]
    listed = json.loads((out.parent / "rejected.json").read_text())
    assert [rejection["file"] for rejection in listed] == ["c", "d", "e", "f", "g", "h"]
    assert len(prepare(raw, out, limit=6 / 8, **splits)[1]) == 6
    assert not (out.parent / "rejected.json").exists(), "a list of what is no longer wrong would mislead"


def test_a_split_that_lost_all_of_a_class_is_named(raw, out):
    write(raw, a=[1], b=[])
    parts, _ = prepare(raw, out, test=["a"], val=["b"])
    ingest.check_classes(raw, parts, ["no", "yes"], {"test": {"yes"}, "val": set()}, "clip")
    with pytest.raises(PedigreeError, match=r"raw: val has no clip left of yes: all were .* add clips, or"):
        ingest.check_classes(raw, parts, ["no", "yes"], {"test": {"yes"}, "val": {"yes"}}, "clip")


def test_long_work_shows_how_far_it_is_and_quick_work_says_nothing(raw, out, caplog, monkeypatch):
    write(raw, a=[1], b=[])
    with caplog.at_level(logging.INFO, "pedigree.prepare"):
        prepare(raw, out, test=["a", "b"])
        assert caplog.messages == []
        monkeypatch.setattr(progress, "QUIET_SECONDS", -1)
        prepare(raw, out, test=["a", "b"])
    assert caplog.messages[-1] == f"{raw}: 2 of 2 files read, 1 rejected"


def test_hidden_and_system_files_are_passed_over(raw):
    write(raw, **{".DS_Store": [1], "Thumbs.db": [1], "desktop.ini": [1], "a.wav": [1]})
    (raw / "folder").mkdir()
    (raw / ".ipynb_checkpoints").mkdir()
    assert sorted(raw_files.visible(raw)) == [("a.wav", False), ("folder", True)]


@given(st.sets(st.text(), min_size=1), st.integers(0, 100), st.randoms(use_true_random=False))
def test_the_shuffled_order_is_that_of_the_names_and_the_seed_and_what_is_added_moves_nothing(names, seed, random):
    order = ingest.shuffled(names, seed)
    given_otherwise = sorted(names)
    random.shuffle(given_otherwise)
    assert ingest.shuffled(given_otherwise, seed) == order
    more = ingest.shuffled([*names, "\0 one more"], seed)
    assert [name for name in more if name in names] == order


def test_another_seed_shuffles_otherwise():
    assert len({tuple(ingest.shuffled("abcdef", seed)) for seed in range(5)}) == 5


def test_only_the_first_of_many_names_are_listed():
    assert raw_files.listed(list("abcde")) == "a, b, c, d, e"
    assert raw_files.listed([*"abcde", *map(str, range(1000))]) == "a, b, c, d, e and 1,000 more"


def test_a_missing_list_of_files_names_the_remedy(tmp_path):
    with pytest.raises(PedigreeError, match=r"test\.files\.txt is missing: run prepare again"):
        file_names(tmp_path, "test")
