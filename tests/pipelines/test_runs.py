"""Which folder a flow run works in: its own, or that of the same flow that was interrupted."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from components import models
from components.models import Model
from components.runtime import files
from components.runtime.processes import Process
from pipelines import runs
from tests.conftest import ROOT
from tests.runtime.test_surroundings import RENAMED, needs_namespaces


class KilledError(Exception):
    """Ends a block as a kill does."""


@pytest.fixture
def digits(project: Path, tmp_path: Path) -> Model:
    return replace(models.load(project, "digits"), root=tmp_path)


def interrupt(model: Model, flow_run: str, announced: bool = False) -> Path:
    if announced:
        runs.announce(model, flow_run)
    with pytest.raises(KilledError), runs.folder(model, flow_run) as run_folder:
        raise KilledError
    return run_folder


def with_train(model: Model, **values: int) -> Model:
    train = model.params.train.model_copy(update=values)
    return replace(model, params=model.params.model_copy(update={"train": train}))


def left(root: Path) -> list[runs.Record]:
    found: list[runs.Record] = []

    def keep(run_folder: Path, record: runs.Record) -> runs.Record:
        found.extend([record] if runs.is_interrupted(run_folder, record) else [])
        return record

    runs.settle_all(root, keep)
    return found


def test_a_flow_that_was_settled_is_not_looked_at_again_until_somebody_resumes_it(tmp_path, digits):
    interrupt(digits, "first")
    runs.settle_all(tmp_path, lambda run_folder, record: record.model_copy(update={"settled": True}))
    assert left(tmp_path) == []
    interrupt(digits, "second")
    assert [(record.flow_run, record.earlier) for record in left(tmp_path)] == [("second", ["first"])]


def test_an_interrupted_flow_is_resumed_in_its_folder_whoever_asks_for_it(tmp_path, digits):
    run_folder = interrupt(digits, "first")
    assert [record.flow_run for record in left(tmp_path)] == ["first"]
    assert interrupt(digits, "first") == run_folder
    assert [record.attempts for record in left(tmp_path)] == [2]
    with runs.folder(digits, "second") as again:
        assert again == run_folder
        assert left(tmp_path) == []
    assert left(tmp_path) == []
    with runs.folder(digits, "third") as new:
        assert new != run_folder


def test_a_flow_that_was_killed_in_another_container_is_resumed_by_its_successor(tmp_path, digits):
    run_folder = interrupt(digits, "first")
    (record,) = left(tmp_path)
    elsewhere = Process(machine="of the predecessor", pid=1, born="2")
    files.write_text(run_folder / runs.RECORD, record.model_copy(update={"process": elsewhere}).model_dump_json())
    assert [record.flow_run for record in left(tmp_path)] == ["first"]
    with runs.folder(digits, "second") as again:
        assert again == run_folder


ANNOUNCE = """
import sys
from pathlib import Path
from dataclasses import replace
from components import models
from pipelines import runs
digits = models.load(Path(sys.argv[1]), "digits")
runs.announce(replace(digits, root=Path(sys.argv[2])), "first")
"""


@pytest.mark.long
@needs_namespaces
def test_a_flow_run_whose_process_died_before_it_had_a_folder_is_known_whatever_its_host_was_called(
    project, tmp_path, digits
):
    subprocess.run([*RENAMED, sys.executable, "-c", ANNOUNCE, str(project), str(tmp_path)], cwd=ROOT, check=True)
    assert [(record.flow_run, record.attempts) for record in left(tmp_path)] == [("first", 0)]
    interrupt(digits, "second")
    assert [(record.flow_run, record.earlier) for record in left(tmp_path)] == [("second", ["first"])]


def test_a_flow_run_that_resumes_another_leaves_nothing_of_its_own_beginning(tmp_path, digits):
    run_folder = interrupt(digits, "first")
    runs.announce(digits, "second")
    assert (run_folder.parent / "second").exists()
    assert [record.flow_run for record in left(tmp_path)] == ["first"], "the second one has just started"
    with runs.folder(digits, "second") as resumed:
        assert resumed == run_folder
        assert not (run_folder.parent / "second").exists()


def test_a_flow_run_that_comes_back_to_a_folder_that_another_had_meanwhile_is_not_taken_for_a_dead_one(
    tmp_path, digits
):
    runs.announce(digits, "first")
    run_folder = interrupt(digits, "first")
    assert interrupt(digits, "second") == run_folder
    runs.announce(digits, "first")
    assert interrupt(digits, "first") == run_folder
    assert [(record.flow_run, record.earlier) for record in left(tmp_path)] == [("first", ["second"])]


def test_code_that_does_not_train_was_edited_the_training_stays_and_what_was_made_of_it_is_made_again(
    digits, monkeypatch
):
    def finished_before(flow_run: str) -> tuple[Path, set[str]]:
        runs.announce(digits, flow_run)
        with suppress(KilledError), runs.folder(digits, flow_run) as run_folder:
            found = {path.name for path in run_folder.iterdir()} - {"run.json"}
            for folder in ("model", "evaluation"):
                (run_folder / folder).mkdir(exist_ok=True)
            (run_folder / "registered.json").touch()
            raise KilledError
        return run_folder, found

    run_folder, _ = finished_before("first")
    assert finished_before("first") == (run_folder, {"model", "evaluation", "registered.json"})
    monkeypatch.setattr(runs.imports, "source_now", lambda: "of edited code")
    assert finished_before("first") == (run_folder, {"model"})
    assert finished_before("second") == (run_folder, {"model", "evaluation", "registered.json"})


def test_another_parameter_is_another_flow(tmp_path, digits):
    run_folder = interrupt(digits, "first")
    other = with_train(digits, seed=9)
    with runs.folder(other, "second") as new:
        assert new != run_folder


def test_a_model_with_the_same_parameters_and_another_name_is_another_flow(tmp_path, digits):
    run_folder = interrupt(digits, "first")
    with runs.folder(replace(digits, name="digits-again"), "second") as new:
        assert new != run_folder


def test_the_number_of_workers_is_no_part_of_what_a_flow_is(tmp_path, digits):
    run_folder = interrupt(digits, "first")
    with runs.folder(with_train(digits, workers=4), "second") as again:
        assert again == run_folder


def test_a_flow_that_another_process_has_is_left_alone(tmp_path, digits):
    run_folder = interrupt(digits, "first")
    hold = (
        "import sys; from pathlib import Path; from components.runtime import locks\n"
        "with locks.alone(Path(sys.argv[1]), 'a test'): print('held', flush=True); sys.stdin.read()"
    )
    lock = run_folder.with_name(f".{run_folder.name}.lock")
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        assert left(tmp_path) == []
        with runs.folder(digits, "second") as new:
            assert new != run_folder
        other.kill()
    assert [record.flow_run for record in left(tmp_path)] == ["first"]
