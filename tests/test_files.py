"""A file or folder is there whole or not at all."""

import errno
import subprocess

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


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "sealed"
    (folder / "plots").mkdir(parents=True)
    (folder / "metrics.json").write_text('{"accuracy": 0.97}')
    (folder / "plots" / "a.png").write_bytes(bytes(1000))
    files.seal(folder)
    return folder


def test_a_folder_as_it_was_sealed_passes_and_sha256sum_reads_the_seal(sealed):
    files.check_seal(sealed, "evaluate")
    files.seal(sealed)
    files.check_seal(sealed, "evaluate")
    assert subprocess.run(["sha256sum", "--check", "--quiet", files.SEAL], cwd=sealed, check=True).returncode == 0


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda folder: (folder / "metrics.json").write_text('{"accuracy": 0.98}'), "metrics.json"),
        (lambda folder: (folder / "plots" / "a.png").unlink(), "plots/a.png"),
        (lambda folder: (folder / "more.txt").touch(), "more.txt"),
        (lambda folder: (folder / files.SEAL).unlink(), files.SEAL),
        (lambda folder: (folder / files.SEAL).write_bytes(b"\xff"), "metrics.json"),
        (lambda folder: (folder / files.SEAL).write_text((folder / files.SEAL).read_text() + "\n"), files.SEAL),
    ],
    ids=["a digit", "a file gone", "a file more", "no seal", "another seal", "a seal with a line more"],
)
def test_whatever_changes_in_a_sealed_folder_is_noticed_and_named(sealed, harm, named):
    harm(sealed)
    with pytest.raises(PedigreeError, match=f"{named} is .*: run the evaluate stage again"):
        files.check_seal(sealed, "evaluate")
