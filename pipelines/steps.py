"""The four stages as Prefect tasks, and what a flow run shows of them."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import task as step
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from components import files, params
from components.adapters import dvc_data, mlflow_runs, mlflow_versions
from components.contracts import Evaluated, Event, Prepared, Registered, Task, Trained
from components.errors import PedigreeError
from components.params import TaskParams
from components.stages import evaluate as evaluate_stage
from components.stages import prepare as prepare_stage
from components.stages import register as register_stage
from components.stages import train as train_stage
from components.stages.origin import Origin
from pipelines import server


@step(name="prepare", cache_policy=NO_CACHE)
def prepare(task: Task[Any], values: TaskParams, root: Path, out: Path) -> Prepared:
    """Prepare through DVC, which knows when there is nothing to do; a run's own parameters go round it."""
    written = params.validate(task.params, params.read(root / params.FILE), ("tasks", task.name))
    if values.prepare != written.prepare:
        return prepare_stage.prepare(task, values, root / "data" / task.name, out)
    with dvc_data.alone(root):
        dvc_data.repro(root, f"prepare@{task.name}")
        files.link_folder(root / "build" / task.name / "prepared", out)
    return prepare_stage.load(out)


@step(name="train", cache_policy=NO_CACHE)
def train(task: Task[Any], values: TaskParams, prepared: Prepared, out: Path, origin: Origin, name: str) -> Trained:
    """Train with this run's parameters, unless it was done before the flow was cut off; show how far it is."""
    before = train_stage.same(task, values, prepared, out)
    if before:
        return before
    for later in ("evaluation", "registered.json"):  # of another training in this folder
        files.remove(out.with_name(later))
    with server.accelerator():
        listeners = [_progress_artifact(task.name), *([_begin_evaluation] if values.train.workers else [])]
        return train_stage.train(task, values, prepared, out, origin, name, listeners)


def _begin_evaluation(event: Event) -> None:
    if event["kind"] == "starting":
        evaluate_stage.begin()


def _progress_artifact(name: str) -> Callable[[Event], None]:
    artifact = create_progress_artifact(0.0, key=f"{name}-training", description=f"Training of {name}")
    assert isinstance(artifact, UUID)
    told = time.monotonic()

    def tell(event: Event) -> None:
        nonlocal told
        if event["kind"] == "progress" and time.monotonic() - told > 2:  # each is a request to the server
            told = time.monotonic()
            update_progress_artifact(artifact, progress=100 * event["share"])
        elif event["kind"] == "epoch":
            done = event["metrics"]["epoch"] / event["epochs"]
            update_progress_artifact(artifact, progress=100 * done)

    return tell


@step(name="evaluate", cache_policy=NO_CACHE)
def evaluate(task: Task[Any], values: TaskParams, prepared: Prepared, trained: Trained, out: Path) -> Evaluated:
    """Evaluate on the test split, unless it was done before the flow was cut off."""
    with suppress(PedigreeError):  # it is not there, or is damaged
        files.check_seal(out, "evaluate")
        return evaluate_stage.load(out)
    return evaluate_stage.evaluate(task, values, prepared, trained, out)


@step(name="register", cache_policy=NO_CACHE)
def register(
    task: Task[Any], values: TaskParams, prepared: Prepared, trained: Trained, evaluated: Evaluated, out: Path
) -> Registered:
    """Register the model, and show on the flow run what it became."""
    try:
        registered = register_stage.load(out)
    except PedigreeError:  # it was not done before the flow was cut off
        registered = register_stage.register(task, values, prepared, trained, evaluated, out)
    table = [{"metric": f"test/{metric}", "value": value} for metric, value in evaluated.metrics.items()]
    said = "\n\n".join(filter(None, [registered.reason, prepared.manifest.note]))
    create_table_artifact(table, key=f"{task.name}-result", description=said)
    create_table_artifact([dict(rule) for rule in registered.verdict], key=f"{task.name}-verdict")
    create_link_artifact(mlflow_runs.run_url(trained.run_id), key=f"{task.name}-run", link_text="MLflow run")
    create_link_artifact(
        mlflow_versions.version_url(registered.name, registered.version),
        key=f"{task.name}-version",
        link_text=f"{registered.name} version {registered.version}",
    )
    return registered
