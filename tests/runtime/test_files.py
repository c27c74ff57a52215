"""A file or folder is there whole or not at all."""

import errno
import subprocess
import sys

import pytest

from components.errors import PedigreeError, sentence
from components.runtime import files, processes
from tests.conftest import ROOT
from tests.runtime.test_surroundings import RENAMED, needs_namespaces


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


def test_an_error_that_only_a_programmer_can_fix_has_no_sentence():
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


KILLED = """
import os, signal, sys
from pathlib import Path
from components.runtime import files, processes
with files.replacing(Path(sys.argv[1])) as new, files.scratch(Path(sys.argv[1])):
    (new / "weights").write_text("half of the sec")
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print(new, flush=True)
    input()
"""


@needs_namespaces
def test_what_a_process_was_writing_when_it_was_killed_is_removed_whatever_its_host_was_called(tmp_path):
    target = tmp_path / "model"
    command = [*RENAMED, sys.executable, "-c", KILLED, target]
    subprocess.run([*command, "killed"], cwd=ROOT, check=False)
    new, scratch = sorted(files.left_below(tmp_path))
    assert (new / "weights").exists()
    assert scratch.is_dir()
    with subprocess.Popen(
        [*command, "lives"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        its_own = other.stdout.readline().strip()
        assert not new.exists()
        with files.replacing(target) as mine:
            (mine / "weights").write_text("mine")
        assert its_own in map(str, tmp_path.iterdir())
        assert list(files.left_below(tmp_path)) == []
        other.communicate("\n")
    assert names(tmp_path) == ["model"]


def test_what_a_living_process_of_older_code_is_writing_stays(tmp_path):
    me = processes.this()
    new = tmp_path / f".model.new-node-{me.pid}-{me.born}"
    new.mkdir()
    with files.replacing(tmp_path / "model"):
        assert new.exists()
    assert list(files.left_below(tmp_path)) == []
    new.rename(gone := tmp_path / ".model.new-node-1-1.5")
    assert list(files.left_below(tmp_path)) == [gone]


def test_only_one_process_at_a_time_cleans_up_what_another_left(tmp_path):
    left = tmp_path / ".model.scratch-00000000"
    left.mkdir()
    with files.left_behind(left) as first, files.left_behind(left) as second:
        assert (first, second) == (True, False)
    assert not files.lock_of(left).exists()


def test_a_lock_without_what_it_was_for_is_no_leftover_and_goes(tmp_path):
    lock = files.lock_of(tmp_path / ".model.old-00000000")
    lock.touch()
    assert list(files.left_below(tmp_path)) == []
    assert not lock.exists()


def test_a_folder_that_was_killed_between_its_two_renames_is_restored_by_the_next_who_fills_it(tmp_path):
    (tmp_path / ".model.old-predecessor-12-3456").mkdir()
    (tmp_path / ".model.old-predecessor-12-3456" / "weights").write_text("first")

    def fail() -> None:
        with files.replacing(tmp_path / "model"):
            raise OSError

    with pytest.raises(OSError, match=r"^$"):
        fail()
    assert (tmp_path / "model" / "weights").read_text() == "first"
    assert names(tmp_path) == ["model"]


def test_a_link_follows_its_folder_when_both_are_moved_and_leaves_what_is_no_link(tmp_path):
    for name in ("first", "second", "taken"):
        (tmp_path / "project" / name).mkdir(parents=True)
    link = tmp_path / "project" / "links" / "latest"
    files.link(link, tmp_path / "project" / "first")
    files.link(link, tmp_path / "project" / "second")
    moved = (tmp_path / "project").rename(tmp_path / "elsewhere")
    assert (moved / "links" / "latest").resolve() == (moved / "second").resolve()
    assert [path.name for path in (moved / "links").iterdir()] == ["latest"]
    (moved / "taken" / "file").touch()
    files.link(moved / "taken", moved / "first")
    assert (moved / "taken" / "file").exists()
    assert not (moved / "taken").is_symlink()
