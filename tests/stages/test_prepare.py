"""The prepare stage: what is hashed is what is read."""

import logging
import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from components.adapters import dvc_data
from components.contracts import Manifest
from components.errors import PedigreeError
from components.jobs import job, provenance
from components.stages import prepare
from tests import dvc_program


@pytest.fixture(scope="module", autouse=True)
def _without_settings(tmp_path_factory):
    with dvc_program.without_settings(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def template(chain, _without_settings, tmp_path_factory):
    """A project that has the data of the chain's model alone, pinned."""
    root = tmp_path_factory.mktemp("template") / "project"
    shutil.copytree(chain.root / "data" / "digits", root / "data" / "digits")
    (root / ".gitignore").write_text("/build/\n/data/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc_program.dvc(root, "init")
    dvc_data.add(root, "digits")
    return root


@pytest.fixture
def model(chain, template, tmp_path):
    """The chain's model in a project of its own, whose data are pinned."""
    return replace(chain.model, root=shutil.copytree(template, tmp_path / "project"))


def prepared(model):
    return prepare.prepare(model, model.raw, model.build / "prepared")


def lose_a_file(model):
    next((model.raw / "train").rglob("*.png")).unlink()


def test_data_are_known_by_what_was_read_although_the_pin_moved_on(model):
    before = dvc_data.pinned(model.root, "digits")
    found = prepared(model).manifest
    lose_a_file(model)
    dvc_data.add(model.root, "digits")
    data = provenance._data(model.root, prepare.load(model.build / "prepared").manifest)
    assert found.pinned
    assert data.raw == data.pinned == before != dvc_data.pinned(model.root, "digits")


def test_data_that_were_never_pinned_are_not_said_to_be(model):
    lose_a_file(model)
    manifest = prepared(model).manifest
    assert not manifest.pinned
    assert provenance._data(model.root, manifest).pinned == "none"


def test_data_that_are_pinned_after_they_were_prepared_count_as_pinned(model):
    lose_a_file(model)
    manifest = prepared(model).manifest
    dvc_data.add(model.root, "digits")
    assert provenance._data(model.root, manifest).pinned == manifest.raw


def test_files_that_are_passed_over_are_named_and_are_no_part_of_a_trainings_key(model, caplog):
    for name in (".DS_Store", "train/Thumbs.db", "README.md"):
        (model.raw / name).write_text("x")
    with caplog.at_level(logging.INFO, "pedigree.prepare"):
        manifest = prepared(model).manifest
    assert manifest.ignored == [".DS_Store", "README.md", "train/Thumbs.db"]
    assert "prepare digits: ignored .DS_Store, README.md, train/Thumbs.db" in caplog.messages
    without = manifest.model_copy(update={"ignored": []})
    assert job.key(model, manifest, "code", {}) == job.key(model, without, "code", {})


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_a_file_that_changes_while_it_is_read_ends_the_stage_and_earlier_results_stay(model, change):
    earlier = prepared(model)
    read = model.task.prepare

    def meanwhile(raw, out, params):
        manifest = read(raw, out, params)
        file = next((raw / "train").rglob("*.png"))
        if change == "edit":
            file.write_bytes(file.read_bytes()[:-1])
        elif change == "add":
            shutil.copyfile(file, file.with_name("another.png"))
        else:
            file.unlink()
        return manifest

    with pytest.raises(PedigreeError, match=r"digits was changed while it was read: run the same command again"):
        prepared(replace(model, task=replace(model.task, prepare=meanwhile)))
    assert prepare.load(earlier.folder).manifest == earlier.manifest


def test_a_linked_class_is_neither_trained_on_nor_pinned(model, tmp_path):
    moved = (model.raw / "train" / "0").rename(tmp_path / "zeros")
    (model.raw / "train" / "0").symlink_to(moved)
    for refused in (lambda: prepared(model), lambda: dvc_data.add(model.root, "digits")):
        with pytest.raises(PedigreeError, match="DVC does not follow links to folders: train/0: copy"):
            refused()


def test_broken_entries_are_rejected_and_the_rest_is_prepared_and_known_by_its_hash(model, caplog):
    before = dvc_data.hash_of(model.raw, model.root)
    folder = model.raw / "train" / "0"
    (folder / "gone.png").symlink_to("nowhere")
    for loop in (model.raw / "loop", folder.parent / "loop", folder / "loop.png"):
        loop.symlink_to(loop.name)
    (folder / os.fsdecode(b"caf\xe9.png")).touch()
    caplog.set_level(logging.INFO, "pedigree.prepare")
    manifest = prepared(model).manifest
    assert manifest.raw == before
    assert {each.file: each.reason for each in manifest.rejected} == {
        "loop": "a link to nothing: remove it",
        "train/0/caf\\udce9.png": "its name is not UTF-8: rename it",
        "train/0/gone.png": "a link to nothing: remove it",
        "train/0/loop.png": "a link to nothing: remove it",
        "train/loop": "a link to nothing: remove it",
    }
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert "5 files rejected: 4 a link to nothing (such as loop), 1 its name is not UTF-8" in caplog.messages[-1]


def test_files_that_cannot_be_pinned_count_among_the_rejected_of_which_there_may_be_few(model):
    for file in sorted(path for path in model.raw.rglob("*.png") if path.is_file())[::2]:
        file.unlink()
        file.symlink_to("nowhere")
    with pytest.raises(
        PedigreeError, match=r"files cannot be used, more than prepare\.max_rejected 0\.05:"
    ) as caught:
        prepared(model)
    assert "a link to nothing" in str(caught.value)


def test_what_cannot_be_pinned_is_named_where_nothing_else_is_there(model, caplog):
    for file in [path for path in model.raw.rglob("*") if path.is_file()]:
        file.rename(file.with_name(os.fsdecode(b"\xe9") + file.name))
    with pytest.raises(PedigreeError, match="no images"):
        prepared(model)
    assert "files rejected" in caplog.messages[-1]
    assert "its name is not UTF-8 (such as test/0/" in caplog.messages[-1]


def test_broken_entries_are_named_when_data_are_pinned(model):
    folder = model.raw / "train" / "0"
    (folder / "gone.png").symlink_to("nowhere")
    (folder / os.fsdecode(b"caf\xe9.png")).touch()
    before = (model.root / "data.dvc").read_text()
    with pytest.raises(PedigreeError, match=r"digits: DVC cannot pin ") as caught:
        dvc_data.add(model.root, "digits")
    assert "train/0/gone.png (a link to nothing" in str(caught.value)
    assert r"train/0/caf\udce9.png (its name is not UTF-8" in str(caught.value)
    assert (model.root / "data.dvc").read_text() == before


@pytest.mark.parametrize("inside_dvc", [pytest.param(True, marks=pytest.mark.long), False])
def test_links_to_files_elsewhere_and_pipes_end_the_stage_before_anything_is_read(model, tmp_path, inside_dvc):
    (tmp_path / "secret.png").write_text("secret")
    (model.raw / "train" / "0" / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(model.raw / "train" / "0" / "pipe.png")
    if not inside_dvc:
        (model.root / ".dvc").rename(model.root / "away")
    named = rf"train/0/link\.png \(a link to {tmp_path}/secret\.png\), train/0/pipe\.png \(a named pipe\)"
    with pytest.raises(PedigreeError, match=rf"digits may hold only its own files, not {named}: remove them"):
        prepared(model)
    assert not (model.build / "prepared").exists()


def test_a_file_that_dvcignore_keeps_out_of_the_pin_is_not_trained_on(model):
    with (model.root / ".dvcignore").open("a") as file:
        file.write("000.png\n")
    with pytest.raises(PedigreeError, match=r"because of \.dvcignore DVC does not pin train/0/000\.png, .*: move"):
        prepared(model)
