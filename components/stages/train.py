"""Prepared data -> a trained network, on Ray workers, with live progress in one MLflow run."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from components.adapters import git, mlflow_pages, mlflow_runs, mlflow_store
from components.contracts import Event, Prepared, Trained
from components.display import brief
from components.errors import PedigreeError
from components.jobs import gpus, job, launch, provenance, sources
from components.jobs.fit import fit
from components.models import Model
from components.params import RANDOM
from components.runtime import files, presence
from components.stages import prepare
from components.training import loop, model_files
from components.training.progress import Progress
from components.trust import imports
from components.trust.lineage import NONE, Runs, Source

log = logging.getLogger("pedigree.train")

Listener = Callable[[Event], None]

FEW_UPDATES = 25
"""Fewer updates teach random weights little: the embedded models have 126 or more."""


def train(
    model: Model,
    prepared: Prepared,
    out: Path,
    flow_run: str = NONE,
    name: str | None = None,
    listeners: Sequence[Listener] = (),
) -> Trained:
    """Train into `out`, which is replaced only on success.

    An interrupted training with the same parameters, data and code resumes from its last checkpoint, in its MLflow
    run.

    Args:
        model: The model to train.
        prepared: The data.
        out: Folder of the trained model.
        flow_run: Id of the Prefect flow run, if there is one.
        name: Name of the MLflow run; by default the model's name.
        listeners: Receive each event, in addition to MLflow and the progress line. An error of one of them ends the
            training after a checkpoint.
    """
    task, params, root = model.task, model.params, model.root
    files.check_seal(prepared.folder, "prepare")
    if params.train.best_metric not in task.better:
        raise PedigreeError(
            f"train.best_metric {brief(params.train.best_metric)} is not a validation metric: use one of "
            f"{', '.join(task.better)}"
        )
    identified = sources.identify(params, root)
    _check_start(model, prepared, identified, out)
    before = _stamp(out)
    with gpus.of_training(model) as held, ExitStack() as stack:
        code = imports.of_training(task)  # after waiting, so that edits made meanwhile count
        started = provenance.record(root, prepared.manifest, code)
        job_key = job.key(model, prepared.manifest, code.sha256, sources.of_training(identified))
        training = stack.enter_context(job.resumed_or_new(out, job_key, model.name, started))
        if _stamp(out) != before and (finished := same(model, prepared, out)):
            return finished  # by the process that we waited for, such as one whose DVC was killed
        new = stack.enter_context(files.replacing(out))
        logged = params.model_dump(by_alias=True)
        run_id = mlflow_runs.start_run(
            training.id,
            model.name,
            name or model.name,
            logged,
            prepared.manifest,
            prepared.folder,
            mlflow_pages.source_tags(git.user(root), f"pedigree run {model.name}", started.code.commit),
        )
        history: dict[int, dict[str, float]] = {}
        start: Event = {}
        with mlflow_runs.recording(run_id) as recorder, Progress(model.name, model.task.unit) as progress:

            def on_validation(metrics: dict[str, float], snapshot: str = "") -> None:
                update = int(metrics["update"])
                if update not in history:
                    history[update] = metrics
                    recorder.log(_logged(metrics), update, training.folder / snapshot if snapshot else None)

            def on_event(event: Event) -> None:
                if event["kind"] == "start":
                    start.update(event)
                    for metrics in event["history"]:
                        on_validation(metrics)
                    training.started(event)
                elif event["kind"] == "validation":
                    on_validation(event["metrics"], event["snapshot"])

            local = sources.fetch(sources.of_training(identified), root, training.folder / sources.FOLDER)
            work = partial(fit, code, model, prepared, training.folder, local)
            notify = _all_of([on_event, partial(_warn_of_few, model), progress.show, *listeners])
            presence.end_orphans(root)
            with files.scratch(training.folder / "ray") as scratch, _resumable(model.name):
                notify({"kind": "starting"})
                launch.run(work, params.train.workers, scratch, notify, run_id, held, params.train.retries)
        files.copy(training.folder / model_files.WEIGHTS, new / model_files.WEIGHTS)
        for key, path in sources.for_answers(local).items():
            files.link_folder(path.parent, new / sources.FOLDER / key)
        rows = [history[update] for update in sorted(history)]
        described = _describe(model, prepared, new, rows, run_id, job_key)
        runs = Runs(prefect=flow_run, ray=run_id, mlflow=run_id)
        earlier = training.record.machines[:-1]
        ancestry = provenance.write(new, training.record.provenance, described, identified, start, earlier, runs)
        files.seal(new)
        mlflow_runs.tag_run(run_id, ancestry.tags())
        mlflow_runs.log_folder(run_id, new, "model")
    return Trained(out, run_id)


def _logged(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return a validation's metrics for MLflow: the update is the step, and no name may sort before `score`."""
    named = {"train/epoch" if name == "epoch" else name: value for name, value in metrics.items()}
    return {name: value for name, value in named.items() if name != "update"}


def _check_start(model: Model, prepared: Prepared, identified: Mapping[str, Source], out: Path) -> None:
    """Initialise a network on two samples, so that unsuitable weights fail before the training waits for anything.

    Raises:
        PedigreeError: the initial weights, or what else parameters name, do not fit the network.
    """
    task, params = model.task, model.params
    few = loop.subset(task, task.load_split(prepared.folder, "train"), 2)
    with files.scratch(out) as scratch:
        named = sources.of_training(identified)
        local = sources.fetch(named, model.root, scratch)
        with sources.naming_originals(named, local):
            loop.initialise(task, params, task.build_model(params, prepared.manifest), few, local)


def _warn_of_few(model: Model, event: Event) -> None:
    """Warn at the start of a training that is too short for random weights."""
    train = model.params.train
    if event["kind"] == "start" and event["updates"] < FEW_UPDATES and train.init.from_ == RANDOM:
        log.warning(
            f"{model.name}: {event['updates']} updates in all are few for random weights: raise train.epochs (now "
            f"{train.epochs}), lower train.batch_size (now {train.batch_size}), or name weights to start from in "
            "train.init.from"
        )


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Return an identity of a folder that changes when the folder is replaced."""
    return (folder.stat().st_ino, folder.stat().st_mtime_ns) if folder.exists() else None


def key_now(model: Model, prepared: Prepared) -> str:
    """Return the key of a training job with these parameters and data and the present code."""
    identified = sources.of_training(sources.identify(model.params, model.root))
    return job.key(model, prepared.manifest, imports.of_training(model.task).sha256, identified)


def same(model: Model, prepared: Prepared, out: Path) -> Trained | None:
    """Return the trained model in `out` if it comes from these parameters, data and the present code, else None."""
    try:
        trained = load(out)
        model_files.load_saved(out)
    except PedigreeError:
        return None
    return trained if model_files.read_key(out) == key_now(model, prepared) else None


@contextmanager
def _resumable(name: str) -> Iterator[None]:
    """Log how to resume a training that a signal interrupts."""
    try:
        yield
    except Exception:
        raise
    except BaseException:  # Ctrl-C is KeyboardInterrupt; Prefect has an exception of its own for SIGTERM
        log.warning("the training of %s was interrupted: run the same command again to resume it", name)
        raise


def _all_of(listeners: Sequence[Listener]) -> Listener:
    """Pass events to all listeners."""

    def notify(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return notify


def _describe(
    model: Model,
    prepared: Prepared,
    out: Path,
    history: list[dict[str, float]],
    run_id: str,
    job_key: str,
) -> model_files.Saved:
    described = model_files.Saved(
        model=model.name,
        task=model.task.name,
        params=model.params.model_dump(by_alias=True, mode="json"),
        manifest=prepared.manifest.model_copy(update={"rejected": []}),
        weights_sha256=files.sha256(out / model_files.WEIGHTS),
    )
    files.write_text(out / model_files.MODEL, described.model_dump_json(indent=2) + "\n")
    files.write_json(out / model_files.RUN, {"run_id": run_id, "key": job_key})
    model_files.write_history(out, history)
    return described


def load(folder: Path) -> Trained:
    """Load what `train` wrote."""
    if not folder.is_dir():
        raise PedigreeError(f"{folder} holds no trained model: run the train stage first")
    return Trained(folder, model_files.read_run(folder))


def run(model: Model) -> None:
    """Run the stage alone, as dvc.yaml does, from build/<model>/prepared/ to build/<model>/model/."""
    with mlflow_store.answering():
        mlflow_store.connect(model.root)
        train(model, prepare.load(model.build / "prepared"), model.build / "model")
