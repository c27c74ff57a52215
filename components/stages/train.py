"""Prepared data -> a trained network, on Ray's workers, with one MLflow run that tells of it live."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from components import files, locks, processes
from components.adapters import mlflow_runs, mlflow_store
from components.contracts import Event, Prepared, Task, Trained
from components.errors import PedigreeError
from components.params import TaskParams
from components.progress import Progress
from components.stages import job, prepare, work
from components.stages.fit import fit, source_now
from components.stages.origin import Origin, beginning, write
from components.training import saved
from components.trust.lineage import Runs

log = logging.getLogger("pedigree.train")

Listener = Callable[[Event], None]

ACCELERATOR = Path("build", ".accelerator.lock")
"""In the project: one training at a time has the accelerator."""
AHEAD = Path("build", ".ahead.lock")
"""In the project: of those that wait for the accelerator, one process has started what training needs."""


def begin(params: TaskParams, root: Path) -> None:
    """Begin to start what `train` needs, beside what comes before it.

    Of several flows of a checkout that begin together one does; the others will wait, with no Ray meanwhile.
    """
    if not locks.held(root / ACCELERATOR) and locks.kept(root / AHEAD):
        work.begin(params.train.workers)


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

    A training that was interrupted goes on where it was, in its own MLflow run, when it is asked for again with the
    same parameters, data and code.

    Args:
        task: What is trained.
        params: Its parameters.
        prepared: The data.
        out: Folder of the model.
        origin: The project, and the flow run, that this training belongs to.
        name: Of the MLflow run; the task's name if there is none.
        listeners: Told of each event, beside MLflow and the progress line.
    """
    files.check_seal(prepared.folder, "prepare")
    # A wrong checkpoint ends it at once; what the data give to a start is taken from all of them in the training.
    few = {name: tensor[:2] for name, tensor in task.load_split(prepared.folder, "train").items()}
    task.initialise(task.build_model(params, prepared.manifest), params, few)
    before = _stamp(out)
    with _accelerator(origin.root, task.name, params.train.workers), ExitStack() as stack:
        locks.let_go(origin.root / AHEAD)
        known = beginning(origin.root, prepared.manifest)  # whoever waits runs the code that there is afterwards
        its_key = job.key(task, params, prepared.manifest, known.code.components)
        its_job = stack.enter_context(job.taken_up(out, its_key, task.name, known))
        if _stamp(out) != before and (made_meanwhile := same(task, params, prepared, out)):
            return made_meanwhile  # by the process that we waited for, such as one whose DVC was killed
        new = stack.enter_context(files.replacing(out))
        told = params.model_dump(by_alias=True)
        run_id = mlflow_runs.start_run(
            its_job.id, task.name, name or task.name, told, prepared.manifest, prepared.folder
        )
        history: dict[int, dict[str, float]] = {}
        begun: Event = {}
        with mlflow_runs.recording(run_id, "epoch") as recorder, Progress(task.name) as progress:

            def on_epoch(metrics: dict[str, float]) -> None:
                epoch = int(metrics["epoch"])
                if epoch not in history:
                    history[epoch] = metrics
                    recorder.log(metrics, epoch)

            def on_event(event: Event) -> None:
                if event["kind"] == "start":
                    begun.update(event)
                    for metrics in event["history"]:
                        on_epoch(metrics)
                    its_job.begun(event)
                elif event["kind"] == "epoch":
                    on_epoch(event["metrics"])

            fitting = partial(fit, known.code.components, task, params, prepared, its_job.folder)
            tell = _told([on_event, progress.tell, *listeners])
            processes.end_left(origin.root)
            with files.scratch(its_job.folder / "ray") as scratch, _resumable(task.name):
                tell({"kind": "starting"})
                work.run(fitting, params.train.workers, scratch, tell, run_id, params.train.retries)
        files.copy(its_job.folder / saved.WEIGHTS, new / saved.WEIGHTS)
        rows = [history[epoch] for epoch in sorted(history)]
        described = _describe(task, params, prepared, new, rows, run_id, its_key)
        runs = Runs(prefect=origin.flow_run, ray=run_id, mlflow=run_id)
        earlier = its_job.record.machines[:-1]
        made = write(new, its_job.record.beginning, described, begun, earlier, runs)
        files.seal(new)
        mlflow_runs.tag_run(run_id, made.tags())
        mlflow_runs.log_folder(run_id, new, "model")
    return Trained(out, run_id)


def _accelerator(root: Path, name: str, workers: int) -> AbstractContextManager[None]:
    """Wait for this machine's accelerator; those of a cluster are Ray's to give."""
    return locks.alone(root / ACCELERATOR, f"the training of {name}") if work.here(workers) else nullcontext()


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Return what is another when a folder was replaced."""
    return (folder.stat().st_ino, folder.stat().st_mtime_ns) if folder.exists() else None


def same(task: Task[Any], params: TaskParams, prepared: Prepared, out: Path) -> Trained | None:
    """Return what `out` holds, if it is what a training of these parameters, data and code makes."""
    try:
        trained = load(out)
        saved.load_saved(out)
    except PedigreeError:
        return None
    its_key = job.key(task, params, prepared.manifest, source_now())
    return trained if saved.read_key(out) == its_key else None


@contextmanager
def _resumable(name: str) -> Iterator[None]:
    """Tell whoever stops a training how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        log.warning("%s was stopped in training: the same command goes on from its last checkpoint", name)
        raise


def _told(listeners: Sequence[Listener]) -> Listener:
    """Tell all of an event: the failure of one, a server being away, ends neither the others nor the training."""

    def tell(event: Event) -> None:
        for listener in listeners:
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
    its_key: str,
) -> saved.Saved:
    described = saved.Saved(
        task=task.name,
        params=params.model_dump(by_alias=True, mode="json"),
        manifest=prepared.manifest.model_copy(update={"refused": []}),
        weights_sha256=files.sha256(out / saved.WEIGHTS),
    )
    files.write_text(out / saved.MODEL, described.model_dump_json(indent=2) + "\n")
    files.write_json(out / saved.RUN, {"run_id": run_id, "key": its_key})
    saved.write_history(out, history)
    return described


def load(folder: Path) -> Trained:
    """Take up what `train` wrote."""
    if not folder.is_dir():
        raise PedigreeError(f"{folder} holds no trained model: run the train stage first")
    return Trained(folder, saved.read_run(folder))


def run(task: Task[Any], params: TaskParams, root: Path) -> None:
    """Run the stage by itself, as dvc.yaml does: from build/<task>/prepared/ to build/<task>/model/."""
    build = root / "build" / task.name
    with mlflow_store.answering():
        mlflow_store.connect(root)
        train(task, params, prepare.load(build / "prepared"), build / "model", Origin(root))
