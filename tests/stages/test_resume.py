"""What was interrupted goes on where it was: in the same MLflow run, with every step once, to the same weights."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from components import files, locks, params
from components.adapters import mlflow_versions
from components.errors import PedigreeError
from components.stages import fit, job, origin, register, train, work
from components.stages.job import UNFINISHED
from components.stages.origin import Origin
from components.training import loop, saved
from tests.conftest import TASKS


class KilledError(Exception):
    """Ends a training as a kill does: nothing is written after it."""


def quickly_saving(values: params.TaskParams) -> params.TaskParams:
    return values.model_copy(update={"train": values.train.model_copy(update={"checkpoint_seconds": 1e-9})})


@pytest.mark.parametrize("name", TASKS)
def test_a_training_that_was_cut_off_ends_in_the_same_weights_and_one_run(chain_of, tmp_path, monkeypatch, name):
    chain, update, made = chain_of(name), loop._update, 0
    values, out = quickly_saving(chain.values), tmp_path / "model"

    def cut_off(*arguments: object) -> object:
        nonlocal made
        made += 1
        if made in (3, 5):
            raise KilledError
        return update(*arguments)

    monkeypatch.setattr(loop, "_update", cut_off)
    for _ in range(2):
        with pytest.raises(KilledError):
            train.train(chain.task, values, chain.prepared, out, Origin(chain.root))
        assert not out.exists()
    trained = train.train(chain.task, values, chain.prepared, out, Origin(chain.root))
    assert files.sha256(out / saved.WEIGHTS) == files.sha256(chain.trained.folder / saved.WEIGHTS)
    client = MlflowClient()
    steps = [metric.step for metric in client.get_metric_history(trained.run_id, "train/loss")]
    assert steps == list(range(1, values.train.epochs + 1))
    run = client.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    same_job = client.search_runs([run.info.experiment_id], f"tags.job = '{run.data.tags['job']}'")
    assert [each.info.run_id for each in same_job] == [trained.run_id]
    assert [row["epoch"] for row in saved.read_history(out)] == steps
    assert not list((tmp_path / UNFINISHED).glob("*/"))


def test_another_parameter_is_another_training_and_costs_the_unfinished_one_nothing(chain, tmp_path, monkeypatch):
    values, update = quickly_saving(chain.values), loop._update

    def cut_off(*_: object) -> object:
        raise KilledError

    out = tmp_path / "model"
    monkeypatch.setattr(loop, "_update", cut_off)
    with pytest.raises(KilledError):
        train.train(chain.task, values, chain.prepared, out, Origin(chain.root))
    monkeypatch.setattr(loop, "_update", update)
    other = values.model_copy(update={"train": values.train.model_copy(update={"seed": 7, "epochs": 1})})
    train.train(chain.task, other, chain.prepared, out, Origin(chain.root))
    assert len(list((tmp_path / UNFINISHED).glob("*/job-*.json"))) == 1


def test_a_worker_does_not_train_with_other_code_than_the_training_began_with(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "source_now", lambda: "of code that was edited meanwhile")
    with pytest.raises(PedigreeError, match=r"components/ was edited, .* since the training of vision began"):
        train.train(chain.task, chain.values, chain.prepared, tmp_path / "model", Origin(chain.root))
    assert not (tmp_path / "model").exists()


def test_code_that_was_edited_since_the_command_began_is_not_said_to_have_trained(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "_LOADED", "of code that was edited meanwhile")
    with pytest.raises(PedigreeError, match="components/ was edited since this command began"):
        train.train(chain.task, chain.values, chain.prepared, tmp_path / "model", Origin(chain.root))


def test_another_file_under_the_name_that_a_parameter_gives_is_another_training(chain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = chain.values.train.model.model_copy(update={"checkpoint": "resnet18.pth"})
    values = chain.values.model_copy(update={"train": chain.values.train.model_copy(update={"model": model})})
    keys = set()
    for content in (b"one", b"two", b"two"):
        (tmp_path / "resnet18.pth").write_bytes(content)
        keys.add(job.key(chain.task, values, chain.prepared.manifest, "code"))
    assert len(keys) == 2


def test_a_registration_that_was_cut_off_is_taken_up_by_the_same_version(chain, tmp_path, monkeypatch):
    gate = chain.values.register_.model_copy(update={"name": "cut-off"})
    values = chain.values.model_copy(update={"register_": gate})
    told = mlflow_versions.set_alias

    def cut_off(*_: object) -> None:
        raise KilledError

    def again() -> register.Registered:
        parts = (chain.prepared, chain.trained, chain.evaluated)
        return register.register(chain.task, values, *parts, tmp_path / "registered.json")

    for where in ("say", "describe", "promote", "done"):
        with monkeypatch.context() as patch:
            patch.setattr(mlflow_versions, where, cut_off)
            if where == "say":  # inside the very call that makes the version
                patch.setattr(mlflow_versions, "say", cut_off)
            with pytest.raises(KilledError):
                again()
    made = again()
    assert (made.version, made.aliases) == (1, ("challenger", "champion"))
    assert mlflow_versions.set_alias is told
    assert [step["version"] for step in mlflow_versions.promotions("cut-off")] == [1]
    assert [version.version for version in mlflow_versions.versions() if version.name == "cut-off"] == [1]
    assert again().version == 2


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "components", "vision", "train"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )


def updates(folder: Path) -> int:
    """Return how far the training is that was begun last."""
    trainings = (folder / "build" / "vision" / UNFINISHED).glob("*/job-*.json")
    last = max(trainings, key=lambda file: file.stat().st_ctime_ns, default=folder / "none").parent
    return max((int(file.name.split("-")[0]) for file in last.glob("checkpoints/*.safetensors")), default=0)


def await_updates(folder: Path, process: subprocess.Popen[str], number: int) -> None:
    end = time.monotonic() + 120
    while not workers(process):
        assert process.poll() is None, process.stderr.read()  # until it has begun, files are of another
        time.sleep(0.05)
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
    """Tell whether all are gone, within a moment."""
    _, alive = psutil.wait_procs(processes_, timeout=10)
    return all(each.status() == psutil.STATUS_ZOMBIE for each in alive)


def set_train(folder: Path, **train: object) -> None:
    from ruamel.yaml import YAML

    yaml = YAML()
    tree = yaml.load(folder / "params.yaml")
    tree["tasks"]["vision"]["train"] |= train
    yaml.dump(tree, folder / "params.yaml")


@pytest.fixture(scope="module")
def long(chain, tmp_path_factory) -> Path:
    """A project in which vision trains for some seconds on Ray, with its data prepared."""
    folder = tmp_path_factory.mktemp("resume") / "project"
    shutil.copytree(chain.root, folder, ignore=shutil.ignore_patterns("build", "mlflow.db", "mlruns", ".prefect"))
    shutil.copytree(chain.prepared.folder, folder / "build" / "vision" / "prepared")
    set_train(folder, workers=1, epochs=40, checkpoint_seconds=0.05, retries=2)
    return folder


def weights(folder: Path) -> str:
    return files.sha256(folder / "build" / "vision" / "model" / saved.WEIGHTS)


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
    assert "vision goes on after epoch" in second.stderr.read()
    assert weights(long) == expected
    assert gone(left)
    client = MlflowClient(f"sqlite:///{long / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("vision").experiment_id])
    assert [run.info.status for run in runs] == [
        "FINISHED"
    ] * 2  # the whole one, and the one that was cut off twice


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
    assert said.endswith("vision was stopped in training: the same command goes on from its last checkpoint\n")
    assert gone(left)


@pytest.mark.long
def test_with_another_number_of_workers_it_goes_on_and_says_that_the_bits_differ(long):
    set_train(long, seed=1, workers=2)
    process = start(long)
    assert process.wait(400) == 0, process.stderr.read()
    said = process.stderr.read()
    assert "vision goes on after epoch" in said
    assert "worker(s) so far and goes on on cpu" in said
    assert "the bits of its weights will differ" in said
    lineage = (long / "build" / "vision" / "model" / "lineage.json").read_text()
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


def test_a_training_that_will_have_to_wait_starts_no_ray_meanwhile(chain, tmp_path, monkeypatch):
    begun: list[int] = []
    monkeypatch.setattr(work, "begin", begun.append)
    with locks.alone(tmp_path / train.ACCELERATOR, "another training"):
        train.begin(chain.values, tmp_path)
    assert not begun
    train.begin(chain.values, tmp_path)
    assert begun == [chain.values.train.workers]
