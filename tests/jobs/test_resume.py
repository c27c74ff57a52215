"""What was interrupted goes on where it was: in the same MLflow run, with every step once, to the same weights."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from components import params
from components.adapters import mlflow_versions
from components.contracts import Trained
from components.errors import PedigreeError
from components.jobs import provenance
from components.jobs.job import UNFINISHED
from components.runtime import files
from components.stages import register, train
from components.training import loop, model_files
from components.trust import imports
from components.trust.imports import Imported
from tests.conftest import EACH, Chain
from tests.runtime.test_surroundings import RENAMED, needs_namespaces


class KilledError(Exception):
    """Ends a training as a kill does: nothing is written after it."""


def quickly_saving(values: params.TaskParams, **train: object) -> params.TaskParams:
    changes = {"checkpoint_seconds": 1e-9, **train}
    return values.model_copy(update={"train": values.train.model_copy(update=changes)})


def train_and_die(chain: Chain, values: params.TaskParams, out: Path, updates: tuple[int, ...]) -> Trained:
    """Train, and again, with a kill in each of some updates, counted over all attempts; return what comes of it."""
    update, count = loop._update, 0

    def interrupt(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count in updates:
            raise KilledError
        return update(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_update", interrupt)
        for _ in updates:
            with pytest.raises(KilledError):
                train.train(chain.having(values), chain.prepared, out)
            assert not out.exists()
        return train.train(chain.having(values), chain.prepared, out)


@pytest.mark.parametrize("name", EACH)
def test_a_training_that_was_interrupted_ends_in_the_same_weights_and_one_run(chain_of, tmp_path, name):
    chain, out = chain_of(name), tmp_path / "model"
    values = quickly_saving(chain.values)
    trained = train_and_die(chain, values, out, (3, 5))
    assert files.sha256(out / model_files.WEIGHTS) == files.sha256(chain.trained.folder / model_files.WEIGHTS)
    rows, whole = model_files.read_history(out), model_files.read_history(chain.trained.folder)
    assert [row["epoch"] for row in rows] == list(range(1, values.train.epochs + 1))
    assert [row["update"] for row in rows] == [row["update"] for row in whole]
    client = MlflowClient()
    steps = [metric.step for metric in client.get_metric_history(trained.run_id, "train/loss")]
    assert steps == [row["update"] for row in rows]
    run = client.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    same_job = client.search_runs([run.info.experiment_id], f"tags.job = '{run.data.tags['job']}'")
    assert [each.info.run_id for each in same_job] == [trained.run_id]
    assert not list((tmp_path / UNFINISHED).glob("*/"))


@pytest.mark.long
def test_validations_inside_an_epoch_are_the_same_ones_after_a_kill_beside_them(chain, tmp_path):
    values = quickly_saving(chain.values, validation=params.ValidationParams(every=2, samples=5), epochs=2)
    whole = train.train(chain.having(values), chain.prepared, tmp_path / "whole" / "model")
    # Twice right after a validation, and once between two.
    train_and_die(chain, values, tmp_path / "model", (3, 6, 8))
    assert files.sha256(tmp_path / "model" / model_files.WEIGHTS) == files.sha256(
        whole.folder / model_files.WEIGHTS
    )
    rows, expected = (model_files.read_history(folder) for folder in (tmp_path / "model", whole.folder))
    names = [name for name in expected[0] if not name.startswith("speed/")]
    assert [[row[name] for name in names] for row in rows] == [[row[name] for name in names] for row in expected]
    assert [row["update"] for row in rows] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(("workers", "epochs"), [(0, 8), pytest.param(1, 100, marks=pytest.mark.long)])
def test_an_error_of_a_listener_ends_the_training_after_a_checkpoint_and_it_resumes(
    chain, tmp_path, workers, epochs
):
    values = chain.values.model_copy(
        update={"train": chain.values.train.model_copy(update={"epochs": epochs, "workers": workers})}
    )
    model, validated = chain.having(values), []

    def full(event: dict) -> None:
        if event["kind"] == "validation":
            raise OSError(errno.ENOSPC, "No space left on device", "/a/log")

    def follow(event: dict) -> None:
        validated.extend([event["metrics"]["epoch"]] if event["kind"] == "validation" else [])

    with pytest.raises(OSError, match="No space left on device"):
        train.train(model, chain.prepared, tmp_path / "model", listeners=[full])
    assert not (tmp_path / "model").exists()
    train.train(model, chain.prepared, tmp_path / "model", listeners=[follow])
    assert validated[-1] == epochs
    assert 1 not in validated, "the first epoch was in the checkpoint"


def test_another_parameter_is_another_training_and_costs_the_unfinished_one_nothing(chain, tmp_path, monkeypatch):
    values, update = quickly_saving(chain.values), loop._update

    def interrupt(*_: object) -> object:
        raise KilledError

    out = tmp_path / "model"
    monkeypatch.setattr(loop, "_update", interrupt)
    with pytest.raises(KilledError):
        train.train(chain.having(values), chain.prepared, out)
    monkeypatch.setattr(loop, "_update", update)
    other = values.model_copy(update={"train": values.train.model_copy(update={"seed": 7, "epochs": 1})})
    train.train(chain.having(other), chain.prepared, out)
    assert len(list((tmp_path / UNFINISHED).glob("*/job-*.json"))) == 1


def test_a_worker_does_not_train_with_other_code_than_the_training_began_with(chain, tmp_path, monkeypatch):
    began_with = Imported(imports.of_training(chain.task).modules, "of code that was edited meanwhile")
    monkeypatch.setattr(train.imports, "of_training", lambda task: began_with)
    with pytest.raises(PedigreeError, match="the code of the training of digits was edited since it started"):
        train.train(chain.model, chain.prepared, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_code_that_was_edited_since_the_command_began_is_not_said_to_have_trained(chain, tmp_path, monkeypatch):
    def began_before_an_edit_of(module: str) -> None:
        monkeypatch.setattr(provenance, "_LOADED", imports.hashes() | {module: "before"})

    began_before_an_edit_of("components.stages.register")
    train.train(chain.model, chain.prepared, tmp_path / "other")
    began_before_an_edit_of("components.training.loop")
    with pytest.raises(
        PedigreeError, match=r"^components/training/loop\.py was edited after this command had imported it"
    ):
        train.train(chain.model, chain.prepared, tmp_path / "model")


def test_an_interrupted_registration_is_completed_as_the_same_version(chain, tmp_path, monkeypatch):
    original = mlflow_versions.set_alias

    def interrupt(*_: object) -> None:
        raise KilledError

    def again() -> register.Registered:
        parts = (chain.prepared, chain.trained, chain.evaluated)
        return register.register(replace(chain.model, name="interrupted"), *parts, tmp_path / "registered.json")

    # The first when it was just created, and has no hashes yet.
    for where in ("_with_hashes", "set_description", "promote", "mark_complete"):
        with monkeypatch.context() as patch:
            patch.setattr(mlflow_versions, where, interrupt)
            with pytest.raises(KilledError):
                again()
    count = again()
    assert (count.version, count.aliases) == (1, ("challenger", "champion"))
    assert mlflow_versions.set_alias is original
    assert [step["version"] for step in mlflow_versions.promotions("interrupted")] == [1]
    assert [version.version for version in mlflow_versions.versions() if version.name == "interrupted"] == [1]
    assert again().version == 2


def start(folder: Path, *around: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*around, sys.executable, "-m", "components", "digits", "train"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )


def updates(folder: Path) -> int:
    """Return how far the training is that was started last."""
    trainings = (folder / "build" / "digits" / UNFINISHED).glob("*/job-*.json")
    last = max(trainings, key=lambda file: file.stat().st_ctime_ns, default=folder / "none").parent
    return max((int(file.name.split("-")[0]) for file in last.glob("checkpoints/*.safetensors")), default=0)


def await_updates(folder: Path, process: subprocess.Popen[str], number: int) -> None:
    while not workers(process):
        assert process.poll() is None, process.stderr.read()  # until it has started, files are of another
        time.sleep(0.05)
    await_files(folder, process, number)


def await_files(folder: Path, process: subprocess.Popen[str], number: int) -> None:
    end = time.monotonic() + 120
    while updates(folder) < number:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for each in family(process):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            found += [each] if "RayTrainWorker" in each.name() else []
    return found


def gone(processes_: list[psutil.Process]) -> bool:
    """Return whether all are gone, within a moment."""
    _, alive = psutil.wait_procs(processes_, timeout=10)
    return all(each.status() == psutil.STATUS_ZOMBIE for each in alive)


def set_train(folder: Path, **train: object) -> None:
    from ruamel.yaml import YAML

    yaml = YAML()
    tree = yaml.load(folder / "params.yaml")
    tree["models"]["digits"]["train"] |= train
    yaml.dump(tree, folder / "params.yaml")


@pytest.fixture(scope="module")
def long(chain, tmp_path_factory) -> Path:
    """A project in which digits trains for some seconds on Ray, with its data prepared."""
    folder = tmp_path_factory.mktemp("resume") / "project"
    shutil.copytree(chain.root, folder, ignore=shutil.ignore_patterns("build", "mlflow.db", "mlruns", ".prefect"))
    shutil.copytree(chain.prepared.folder, folder / "build" / "digits" / "prepared")
    set_train(folder, workers=1, epochs=40, checkpoint_seconds=0.05, retries=2)
    return folder


def weights(folder: Path) -> str:
    return files.sha256(folder / "build" / "digits" / "model" / model_files.WEIGHTS)


@pytest.mark.long
def test_killed_workers_and_a_killed_driver_leave_no_trace_in_the_weights(long):
    whole = start(long)
    assert whole.wait(400) == 0, whole.stderr.read()
    expected = weights(long)
    first = start(long)
    await_updates(long, first, 20)
    (worker,) = workers(first)
    worker.kill()
    await_updates(long, first, updates(long) + 20)
    left = family(first)
    first.kill()
    first.wait()
    second = start(long)
    assert second.wait(400) == 0, second.stderr.read()
    assert "digits resumes after epoch" in second.stderr.read()
    assert weights(long) == expected
    assert gone(left)
    client = MlflowClient(f"sqlite:///{long / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert [run.info.status for run in runs] == [
        "FINISHED"
    ] * 2  # the whole one, and the one that was interrupted twice


@needs_namespaces
@pytest.mark.long
def test_a_training_that_was_killed_under_another_host_name_resumes_in_the_same_run(long, tmp_path):
    ignored = shutil.ignore_patterns(UNFINISHED, "mlflow.db", "mlruns")
    folder = shutil.copytree(long, tmp_path / "project", ignore=ignored)
    set_train(folder, workers=0, epochs=60)
    first = start(folder, *RENAMED)
    await_files(folder, first, 20)
    first.kill()
    first.wait()
    second = start(folder)
    assert second.wait(400) == 0, second.stderr.read()
    assert "digits resumes after epoch" in second.stderr.read()
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert run.info.status == "FINISHED"


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_training_with_all_its_children_and_says_how_it_goes_on(long, number):
    set_train(long, seed=1)
    process = start(long)
    await_updates(long, process, 3)
    left = family(process)
    process.send_signal(number)
    assert process.wait(60) == 130
    said = process.stderr.read()
    assert said.endswith("the training of digits was interrupted: run the same command again to resume it\n")
    assert gone(left)


@pytest.mark.long
def test_with_another_number_of_workers_it_goes_on_and_says_that_the_bits_differ(long):
    set_train(long, seed=1, workers=2)
    process = start(long)
    assert process.wait(400) == 0, process.stderr.read()
    said = process.stderr.read()
    assert "digits resumes after epoch" in said
    assert "worker(s) and resumes on cpu" in said
    assert "the weights will not be bitwise identical" in said
    lineage = (long / "build" / "digits" / "model" / "lineage.json").read_text()
    assert '"world": 2' in lineage
    assert '1 worker(s)"' in lineage


@pytest.mark.long
def test_a_training_whose_raylet_is_killed_comes_to_the_same_end(long):
    set_train(long, seed=3, workers=1)
    process = start(long)
    await_updates(long, process, 20)
    (raylet,) = [each for each in family(process) if each.name() == "raylet"]
    raylet.kill()
    if process.wait(400):  # Ray may take the whole process with it: the same command goes on
        again = start(long)
        assert again.wait(400) == 0, again.stderr.read()
    found = weights(long)
    whole = start(long)
    assert whole.wait(400) == 0, whole.stderr.read()
    assert weights(long) == found
