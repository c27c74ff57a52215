"""The four stages as Prefect tasks, and the artifacts that a flow run shows."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from prefect import runtime
from prefect import task as step
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from components import models
from components.adapters import dvc_data, mlflow_pages, mlflow_runs
from components.contracts import Evaluated, Event, Prepared, Registered, Trained
from components.display import markdown
from components.errors import PedigreeError
from components.models import Model
from components.runtime import files, locks
from components.stages import evaluate as evaluate_stage
from components.stages import prepare as prepare_stage
from components.stages import register as register_stage
from components.stages import train as train_stage
from pipelines import accelerator, runs

log = logging.getLogger("pedigree.flow")


@step(name="prepare", cache_policy=NO_CACHE)
def prepare(model: Model, out: Path, before: str = "") -> Prepared:
    """Prepare through DVC, which skips work that is up to date.

    DVC is bypassed while it is busy, perhaps for hours with a training; for a run with other parameters or data
    than params.yaml has; for data with entries that DVC cannot read; and for all runs while a model in params.yaml
    has no `data:`, which dvc.yaml requires.

    Args:
        model: The model to prepare data for.
        out: Folder of the prepared data.
        before: Hash of the raw data that an earlier attempt of the flow run prepared. It uses them again, even if
            other data are pinned meanwhile.
    """
    if before and (again := _again(model, out, before)):
        return again
    model.expect_data()
    broken = dvc_data.survey(model.raw).rejected
    if broken or not _as_written(model):
        return prepare_stage.prepare(model, model.raw, out)
    doing = f"the preparation of {model.name}"
    with locks.alone(model.build / ".prepare.lock", doing), dvc_data.alone_if_free(model.root, doing) as free:
        if not free:
            log.info("%s uses DVC: preparing %s without it", dvc_data.holder(model.root), model.name)
            return prepare_stage.prepare(model, model.raw, out)
        dvc_data.repro(model.root, f"prepare@{model.name}")
        files.link_folder(model.build / "prepared", out)
        prepared = prepare_stage.load(out)
        dvc_data.add_changed(model.root, model.data, prepared.manifest.raw)
    return prepared


def _again(model: Model, out: Path, before: str) -> Prepared | None:
    """Return the data that an earlier attempt prepared, if they are complete; log if there are others by now."""
    changed = not dvc_data.has_version(model.raw, before)
    try:
        prepared = prepare_stage.load(out)
        files.check_seal(out, "prepare")
    except PedigreeError:
        prepared = None
    if prepared and prepared.manifest.raw == before:
        if changed:
            log.info("%s was changed after this flow run had prepared it: it uses what it prepared", model.raw)
        return prepared
    if changed:
        log.info("%s was changed, and what this flow run had prepared is gone: it prepares it again", model.raw)
    return None


def _as_written(model: Model) -> bool:
    """Return whether the DVC stage of a model prepares the same as a flow with these parameters."""
    try:
        values = models.read(model.root)
        written = models.from_values(values, model.root, model.name)
    except PedigreeError:  # params.yaml was changed after the flow run was started
        return False
    return (
        all(each.says_data for each in models.listed(values))
        and written.task.name == model.task.name
        and written.data == model.data
        and written.params.prepare == model.params.prepare
    )


@step(name="train", cache_policy=NO_CACHE)
def train(model: Model, prepared: Prepared, out: Path, flow_run: str, name: str) -> Trained:
    """Train, unless that finished before the flow was interrupted; report progress to Prefect."""
    before = train_stage.same(model, prepared, out)
    if before:
        return before
    runs.remove_results(out.parent)  # they belong to another training in this folder
    with accelerator.slot(model.root, f"the training of {model.name} in the flow run {runtime.flow_run.name}"):
        listeners = [_progress_artifact(model.name), *([_begin_evaluation] if model.params.train.workers else [])]
        return train_stage.train(model, prepared, out, flow_run, name, listeners)


def _begin_evaluation(event: Event) -> None:
    if event["kind"] == "starting":
        evaluate_stage.begin()


def _progress_artifact(name: str) -> Callable[[Event], None]:
    artifact = create_progress_artifact(0.0, key=f"{name}-training", description=f"Training of {name}")
    assert isinstance(artifact, UUID)
    reported = time.monotonic()

    def report(event: Event) -> None:
        try:
            update(event)
        except Exception as error:  # the server may be away for a while, and training needs it only at the end
            log.warning("could not report the progress of training to Prefect: %s", error)

    def update(event: Event) -> None:
        nonlocal reported
        if (
            event["kind"] == "progress" and time.monotonic() - reported > 2
        ):  # each report is a request to the server
            reported = time.monotonic()
            update_progress_artifact(artifact, progress=100 * event["share"])
        elif event["kind"] == "validation":
            done = event["metrics"]["epoch"] / max(event["epochs"], 1)
            update_progress_artifact(artifact, progress=100 * done)

    return report


@step(name="evaluate", cache_policy=NO_CACHE)
def evaluate(model: Model, prepared: Prepared, trained: Trained, out: Path) -> Evaluated:
    """Evaluate on the test split, unless that finished before the flow was interrupted."""
    with suppress(PedigreeError):  # the evaluation is missing or damaged
        files.check_seal(out, "evaluate")
        return evaluate_stage.load(out)
    return evaluate_stage.evaluate(model, prepared, trained, out)


@step(name="register", cache_policy=NO_CACHE)
def register(model: Model, prepared: Prepared, trained: Trained, evaluated: Evaluated, out: Path) -> Registered:
    """Register the model, and show the result on the flow run."""
    try:
        registered = register_stage.load(out)
    except PedigreeError:  # the stage had not finished
        registered = register_stage.register(model, prepared, trained, evaluated, out)
    show(registered, evaluated.metrics, prepared.manifest.note)
    create_link_artifact(mlflow_runs.run_url(trained.run_id), key=f"{model.name}-run", link_text="MLflow run")
    create_link_artifact(
        mlflow_pages.version_url(registered.name, registered.version),
        key=f"{model.name}-version",
        link_text=f"{registered.name} version {registered.version}",
    )
    return registered


def show(registered: Registered, metrics: Mapping[str, float], note: str) -> None:
    """Show metrics and verdict as tables; Prefect's pages take descriptions and cells for Markdown."""
    rows = [{"metric": markdown(f"test/{name}"), "value": value} for name, value in metrics.items()]
    description = "\n\n".join(markdown(text) for text in (registered.reason, note) if text)
    create_table_artifact(rows, key=f"{registered.name}-result", description=description)
    verdict = [
        {"rule": markdown(str(rule["rule"])), "found": markdown(str(rule["found"])), "passed": rule["passed"]}
        for rule in registered.verdict
    ]
    create_table_artifact(verdict, key=f"{registered.name}-verdict")
