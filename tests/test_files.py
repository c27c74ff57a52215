"""A file or folder is there whole or not at all."""

import errno

import pytest

from components import files
from components.errors import PedigreeError, sentence


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_folder_that_could_not_be_filled_leaves_the_earlier_one_as_it_was(tmp_path):
    target = tmp_path / "model"
    with files.replacing(target) as new:
        (new / "weights").write_text("first")

    def fail() -> None:
        with files.replacing(target) as new:
            (new / "weights").write_text("half of the sec")
            raise OSError(errno.ENOSPC, "No space left on device", str(new / "weights"))

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert (target / "weights").read_text() == "first"
    assert names(tmp_path) == ["model"]


def test_a_filled_folder_takes_the_place_of_the_earlier_one(tmp_path):
    target = tmp_path / "model"
    for text in ("first", "second"):
        with files.replacing(target) as new:
            (new / text).write_text(text)
    assert names(target) == ["second"]
    assert names(tmp_path) == ["model"]


def test_a_file_is_replaced_whole(tmp_path):
    files.write_json(tmp_path / "a" / "metrics.json", {"accuracy": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a" / "metrics.json", {"accuracy": object()})
    assert (tmp_path / "a" / "metrics.json").read_text() == '{\n  "accuracy": 1\n}\n'
    assert names(tmp_path / "a") == ["metrics.json"]


def test_a_linked_folder_keeps_its_files_when_the_source_is_replaced(tmp_path):
    with files.replacing(tmp_path / "source") as new:
        (new / "array").write_text("first")
    files.link_folder(tmp_path / "source", tmp_path / "mine")
    with files.replacing(tmp_path / "source") as new:
        (new / "array").write_text("second")
    assert (tmp_path / "mine" / "array").read_text() == "first"


def test_a_full_disk_is_explained_with_the_remedy():
    text = sentence(OSError(errno.ENOSPC, "No space left on device", "build/x"))
    assert text is not None
    assert text.startswith("build/x: the disk is full")
    assert "earlier results are untouched" in text


def test_an_error_that_only_a_programmer_can_mend_has_no_sentence():
    assert sentence(ValueError("x")) is None
    assert sentence(PedigreeError("do this")) == "do this"
