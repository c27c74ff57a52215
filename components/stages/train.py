"""Prepared data -> a trained network, on Ray's workers, with one MLflow run that tells of it live."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from components import files
from components.adapters import mlflow_store, ray_train
from components.contracts import Event, Prepared, Task, Trained
from components.errors import PedigreeError
from components.params import TaskParams
from components.progress import Progress
from components.stages.origin import Origin, beginning, write
from components.training import loop, saved
from components.trust.lineage import Runs

log = logging.getLogger("pedigree.train")

Listener = Callable[[Event], None]


def train(
    task: Task[Any],
    params: TaskParams,
    prepared: Prepared,
    out: Path,
    origin: Origin,
    name: str | None = None,
    listeners: Sequence[Listener] = (),
) -> Trained:
    """Train into `out`, which is replaced only when all went well.

    Args:
        task: What is trained.
        params: Its parameters.
        prepared: The data.
        out: Folder of the model.
        origin: The project, and the flow run, that this training belongs to.
        name: Of the MLflow run; the task's name if there is none.
        listeners: Told of each epoch and of the progress inside it, beside MLflow and the progress line.
    """
    files.check_seal(prepared.folder, "prepare")
    known = beginning(origin.root, prepared.manifest)
    task.initialise(task.build_model(params, prepared.manifest), params)  # a wrong checkpoint ends it here, at once
    with files.replacing(out) as new, files.scratch(out) as scratch:
        run_id = mlflow_store.start_run(
            task.name, name or task.name, params.model_dump(by_alias=True), prepared.manifest, prepared.folder
        )
        history: list[dict[str, float]] = []
        begun: Event = {}
        work = partial(loop.fit, task, params, prepared, new)
        with mlflow_store.recording(run_id), Progress(task.name) as progress:

            def on_event(event: Event) -> None:
                if event["kind"] == "start":
                    begun.update(event)
                elif event["kind"] == "epoch":
                    history.append(event["metrics"])
                    mlflow_store.log_metrics(run_id, event["metrics"], step=int(event["metrics"]["epoch"]))
                for listener in (progress.tell, *listeners):
                    listener(event)

            ray_train.run(work, params.train.workers, scratch, _shielded(on_event), run_id)
        described = _describe(task, params, prepared, new, history, run_id)
        runs = Runs(prefect=origin.flow_run, ray=run_id, mlflow=run_id)
        made = write(new, known, described, begun, runs)
        files.seal(new)
        mlflow_store.tag_run(run_id, made.tags())
        mlflow_store.log_folder(run_id, new, "model")
    return Trained(out, run_id)


def _shielded(listener: Listener) -> Listener:
    """Keep a listener's failure, MLflow's server being away for one, from ending the training."""

    def tell(event: Event) -> None:
        try:
            listener(event)
        except Exception as error:
            log.warning("could not record the progress of training: %s", error)

    return tell


def _describe(
    task: Task[Any],
    params: TaskParams,
    prepared: Prepared,
    out: Path,
    history: list[dict[str, float]],
    run_id: str,
) -> saved.Saved:
    described = saved.Saved(
        task=task.name,
        params=params.model_dump(by_alias=True, mode="json"),
        manifest=prepared.manifest.model_copy(update={"refused": []}),
        weights_sha256=files.sha256(out / saved.WEIGHTS),
    )
    files.write_text(out / saved.MODEL, described.model_dump_json(indent=2) + "\n")
    files.write_json(out / saved.RUN, {"run_id": run_id})
    saved.write_history(out, history)
    return described


def load(folder: Path) -> Trained:
    """Take up what `train` wrote."""
    if not folder.is_dir():
        raise PedigreeError(f"{folder} holds no trained model: run the train stage first")
    return Trained(folder, saved.read_run(folder))
