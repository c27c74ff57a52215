"""`pedigree clean`: it removes what nobody needs, says what and how much, and leaves all else."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.adapters import dvc_data, git, mlflow_store, mlflow_versions
from components.jobs.job import UNFINISHED
from components.models import Model
from components.runtime import files, locks, processes
from components.stages import summary, train
from components.training import loop
from pipelines import clean, runs
from tests.conftest import ROOT
from tests.jobs.test_resume import KilledError

GONE = processes.Process(machine=processes.this().machine, pid=2**22 + 1, born="1")
"""A process that is gone."""


@pytest.fixture
def workspace(chain, tmp_path) -> Iterator[Path]:
    """A copy of the project in which the stages of digits have run and a version is registered."""
    folder = tmp_path / "project"
    others = shutil.ignore_patterns(".prefect", "runs", "docstrings-*", "words-*", "*.lock*")
    shutil.copytree(chain.root, folder, ignore=others)
    files.remove(folder / "build" / "digits")  # only a link
    shutil.move(folder / "build" / "digits-chain", folder / "build" / "digits")
    mlflow_store.connect(folder)
    yield folder
    mlflow_store.connect(chain.root)


@pytest.fixture
def cleaned(workspace, monkeypatch, capsys):
    """Run the command in the workspace; return what it printed."""
    monkeypatch.chdir(workspace)

    def run(dry_run: bool = False, interrupted: bool = False) -> str:
        capsys.readouterr()
        clean.clean(workspace, dry_run, interrupted)
        return capsys.readouterr().out

    return run


def tree(folder: Path) -> set[str]:
    """Return all that is below build/ but locks."""
    found = (path.relative_to(folder).as_posix() for path in (folder / "build").rglob("*"))
    return {path for path in found if ".lock" not in path and ".processes" not in path}


def model_in(chain, root: Path) -> Model:
    return replace(chain.model, root=root)


@contextmanager
def flow_run(chain, root: Path, name: str) -> Iterator[Path]:
    """Be a flow that has prepared its data and has trained, until the block ends or raises."""
    with runs.folder(model_in(chain, root), name) as run_folder:
        files.link_folder(root / "build" / "digits" / "prepared", run_folder / "prepared")
        (run_folder / "model").mkdir()
        (run_folder / "model" / "weights.safetensors").write_bytes(bytes(300_000))
        yield run_folder


def finished(chain, root: Path, name: str) -> Path:
    with flow_run(chain, root, name) as run_folder:
        pass
    return run_folder


def interrupted(chain, root: Path, name: str) -> Path:
    """Leave a flow's folder as a process does that was killed in it."""
    with suppress(KilledError), flow_run(chain, root, name) as run_folder:
        raise KilledError
    edit(run_folder, process=GONE)
    return run_folder


def edit(run_folder: Path, **changes: object) -> None:
    record = runs.Record.model_validate_json((run_folder / runs.RECORD).read_bytes())
    files.write_text(run_folder / runs.RECORD, record.model_copy(update=changes).model_dump_json())


HOLD = """
import sys
from pathlib import Path
from components.runtime import locks
with locks.alone(Path(sys.argv[1]), "a test"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Let another process hold a lock."""
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield
        other.kill()


def test_a_finished_run_is_removed_with_its_lock_and_what_is_a_link_counts_nothing(workspace, chain, cleaned):
    before = tree(workspace)
    run_folder = finished(chain, workspace, "first")
    assert (run_folder / "prepared" / "manifest.json").stat().st_nlink == 2
    dry = cleaned(dry_run=True)
    assert re.search(r"finished run +30\d\.\d kB  build/runs/first\nWould remove 1 item, 30\d\.\d kB\.\n$", dry)
    assert run_folder.exists()
    assert cleaned() == dry.replace("Would remove", "Removed")
    assert tree(workspace) == {*before, "build/runs"}
    assert not list((workspace / "build" / "runs").glob(".first.lock*"))
    assert cleaned() == "Removed 0 items, 0 bytes.\n"


def test_the_link_to_the_latest_evaluation_goes_with_its_run_and_another_models_stays(workspace, chain, cleaned):
    run_folder, links = finished(chain, workspace, "first"), {}
    for name, folder in (("digits", run_folder / "evaluation"), ("other", workspace / "build/digits/evaluation")):
        links[name] = workspace / "build" / name / summary.LATEST
        folder.mkdir(exist_ok=True)
        links[name].parent.mkdir(exist_ok=True)
        files.link(links[name], folder)
    assert "build/runs/first (and build/digits/latest, which links to it)\n" in cleaned()
    assert not run_folder.exists()
    assert [name for name, link in links.items() if link.is_symlink()] == ["other"]


def test_a_run_that_a_process_has_stays(workspace, chain, cleaned):
    run_folder = interrupted(chain, workspace, "first")
    with held(run_folder.with_name(".first.lock")):
        assert cleaned(interrupted=True) == "Removed 0 items, 0 bytes.\n"
    edit(run_folder, process=processes.this(), begins=True)
    assert cleaned(interrupted=True) == "Removed 0 items, 0 bytes.\n", "its process has just announced it"
    assert (run_folder / "model").exists()


def test_what_a_process_takes_after_it_was_listed_stays(workspace, chain):
    run_folder = finished(chain, workspace, "first")
    (item,) = clean.flow_runs(workspace)
    with held(run_folder.with_name(".first.lock")):
        assert not clean.project_clean.remove(item, workspace)
    assert (run_folder / "model").exists()


def test_an_interrupted_run_stays_until_it_is_asked_for_and_prefect_can_still_be_informed(
    workspace, chain, cleaned
):
    run_folder = interrupted(chain, workspace, "first")
    said = cleaned()
    assert said.startswith("Removed 0 items, 0 bytes.\nKept 1 interrupted item (")
    assert "that the same command would resume: --interrupted removes" in said
    assert re.search(r"^interrupted run +30\d", cleaned(interrupted=True), re.MULTILINE)
    assert [path.name for path in run_folder.iterdir()] == [runs.RECORD]
    assert runs.knows(workspace, "first"), "else `pedigree up` would begin it again"


def test_a_run_whose_training_code_was_edited_is_an_orphan(workspace, chain, cleaned):
    run_folder = interrupted(chain, workspace, "first")
    edit(run_folder, training_code="of other code")
    assert "orphaned run" in cleaned()
    assert [path.name for path in run_folder.iterdir()] == [runs.RECORD]
    edit(run_folder, settled=True)
    os.utime(run_folder / runs.RECORD, (0, datetime.now(UTC).timestamp() - 3600))
    cleaned()
    assert not run_folder.exists(), "Prefect has known of it for long"


def interrupted_training(chain, workspace: Path, monkeypatch) -> Path:
    """Interrupt the training of `dvc repro`; return its folder."""

    def kill(*_: object) -> None:
        raise KilledError

    prepared = train.prepare.load(workspace / "build" / "digits" / "prepared")
    monkeypatch.setattr(loop, "_update", kill)
    with pytest.raises(KilledError):
        train.train(model_in(chain, workspace), prepared, workspace / "build" / "digits" / "model")
    (folder,) = (workspace / "build" / "digits" / UNFINISHED).glob("*/")
    return folder


def test_a_training_that_the_same_command_resumes_stays_and_with_other_parameters_it_is_an_orphan(
    workspace, chain, cleaned, monkeypatch
):
    training = interrupted_training(chain, workspace, monkeypatch)
    assert "Kept 1 interrupted" in cleaned()
    assert training.exists()
    yaml = YAML()
    values = yaml.load(workspace / "params.yaml")
    values["models"]["digits"]["train"]["epochs"] += 1
    yaml.dump(values, workspace / "params.yaml")
    with held(training.with_name(f"{training.name}.lock")):
        assert cleaned() == "Removed 0 items, 0 bytes.\n"
    with dvc_data.alone(workspace, "another command"):
        assert "Kept 1 interrupted" in cleaned(), "what DVC prepares now may be what it was interrupted on"
    assert re.search(rf"^orphaned training +.*  build/digits/training/{training.name}$", cleaned(), re.MULTILINE)
    assert list(training.parent.iterdir()) == []


def test_a_training_of_which_nobody_knows_whether_it_can_be_resumed_stays(workspace, chain, cleaned, monkeypatch):
    training = interrupted_training(chain, workspace, monkeypatch)
    (workspace / "build" / "digits" / "prepared" / "manifest.json").unlink()
    assert "Kept 1 interrupted" in cleaned()
    assert "interrupted training" in cleaned(interrupted=True)
    assert not training.exists()


def test_what_a_parameter_names_stays(workspace, chain, cleaned):
    run_folder = finished(chain, workspace, "first")
    profile = "task: image_classification\ntrain: {init: {from: build/runs/first/model/weights.safetensors}}\n"
    (workspace / "profiles" / "mine.yaml").write_text(profile)
    assert cleaned() == "Removed 0 items, 0 bytes.\n"
    (workspace / "profiles" / "mine.yaml").unlink()
    assert "finished run" in cleaned()
    assert not run_folder.exists()


def test_what_a_parameter_of_an_interrupted_run_names_stays(workspace, chain, cleaned):
    folder = finished(chain, workspace, "first")
    edit(interrupted(chain, workspace, "second"), sources=["build/runs/first/model/weights.safetensors"])
    assert cleaned().startswith("Removed 0 ")
    assert (folder / "model").exists()


def test_reproductions_and_worktrees_that_killed_processes_left_are_removed_and_those_of_live_ones_stay(
    workspace, chain, cleaned
):
    reproduced = workspace / "build" / "reproduced"
    (reproduced / "digits-1" / "model").mkdir(parents=True)
    left, alive = (reproduced / f".digits-1.scratch-{token}" for token in ("0123abcd", "4567abcd"))
    for folder in (left, alive):
        subprocess.run(["git", "worktree", "add", "-q", "--detach", folder / "code"], cwd=workspace, check=True)
    subprocess.run(["git", "worktree", "add", "-q", "--detach", reproduced / "lost"], cwd=workspace, check=True)
    shutil.rmtree(reproduced / "lost")
    with held(files.lock_of(alive)):
        said = cleaned()
    assert re.search(r"^reproduction +0 bytes  build/reproduced/digits-1$", said, re.MULTILINE)
    assert re.search(rf"^leftover +\d.*  build/reproduced/{left.name}$", said, re.MULTILINE)
    assert re.search(r"^git worktree +0 bytes  build/reproduced/lost$", said, re.MULTILINE)
    assert {path.name.partition(".lock")[0] for path in reproduced.iterdir()} == {alive.name}
    assert git.worktrees(workspace) == [workspace, alive / "code"]


def test_locks_of_what_is_gone_are_removed_and_held_ones_stay(workspace, chain, cleaned):
    gone = [workspace / "build" / "runs" / ".gone.lock", workspace / "build" / "digits" / UNFINISHED / "gone.lock"]
    with locks.alone(gone[0], "a test"), locks.alone(gone[1], "a test"):
        assert cleaned() == "Removed 0 items, 0 bytes.\n"
    said = cleaned()
    assert len(re.findall(r"^stale lock ", said, re.MULTILINE)) == 2
    assert not [path for lock in gone for path in (lock, locks.note_of(lock)) if path.exists()]


def test_what_a_version_consists_of_is_untouched(workspace, chain, cleaned, tmp_path):
    finished(chain, workspace, "first")
    interrupted(chain, workspace, "second")
    cleaned(interrupted=True)
    fetched = mlflow_versions.files_of(mlflow_versions.find("digits@champion"), tmp_path / "version")
    assert files.sha256(fetched.model / "weights.safetensors") == files.sha256(
        workspace / "build" / "digits" / "model" / "weights.safetensors"
    )


def test_where_nothing_was_built_there_is_nothing_to_remove_and_nothing_is_made(tmp_path, capsys):
    clean.clean(tmp_path, dry_run=False, interrupted=False)
    assert capsys.readouterr().out == "Nothing to remove: there is no build/ here.\n"
    assert list(tmp_path.iterdir()) == []
