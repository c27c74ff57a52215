"""MLflow runs: one per job, however often it is interrupted, with each metric once per step."""

import importlib.metadata
import json
import logging
import os
import platform
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from components import display
from components.adapters import mlflow_moved, mlflow_pages
from components.adapters.mlflow_store import SQLITE, expect_absent, for_pages, metric_name
from components.contracts import Manifest
from components.errors import PedigreeError
from components.params import flat

log = logging.getLogger("pedigree.mlflow")

JOB = "job"
"""Tag of a run: its job, by which a resumed job finds its run."""
PATIENCE = 600.0
"""Seconds that a finished training waits for an unreachable store."""
REJECTED = "INVALID_PARAMETER_VALUE"
"""MLflow's code of an error that another attempt cannot change."""
PAUSE = 2.0
"""Seconds between two attempts."""


def run_url(run_id: str) -> str:
    """Return the URL of a run's page."""
    return mlflow_pages.run_url(MlflowClient().get_run(run_id).info.experiment_id, run_id)


def experiment_url(run_id: str) -> str:
    """Return the URL of the list of runs in a run's experiment."""
    return mlflow_pages.experiment_url(MlflowClient().get_run(run_id).info.experiment_id)


def start_run(
    job: str,
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    manifest: Manifest,
    source: Path,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Start or resume a job's run, log its parameters, environment and data, and return its id.

    Args:
        job: Unique id of the job.
        experiment: Name of the experiment, which is created if it does not exist.
        name: Name of the run.
        params: Parameters to log; those that the run already has stay unchanged.
        manifest: Manifest of the prepared data.
        source: Folder of the prepared data.
        tags: Tags of a new run, such as `mlflow_pages.source_tags`.
    """
    client = MlflowClient()
    run_experiment = _experiment(client, experiment)
    mlflow_pages.set_up(run_experiment)
    experiment_id = run_experiment.experiment_id
    run_id = _run_of(client, experiment_id, job)
    if run_id is None:
        note = {MLFLOW_RUN_NOTE: for_pages(display.markdown(manifest.note))} if manifest.note else {}
        created = client.create_run(experiment_id, run_name=name, tags={JOB: job, **note, **tags})
        run_id = str(created.info.run_id)
    mlflow_pages.reserve_score(run_id)
    logged = client.get_run(run_id).data.params
    new = [Param(key, str(value)) for key, value in flat(params).items() if key not in logged]
    client.log_batch(run_id, params=new)
    client.log_inputs(run_id, [_dataset(manifest, split, source) for split in ("train", "val")])
    client.log_dict(run_id, environment(), "environment.json")
    client.log_dict(run_id, manifest.model_dump(), "manifest.json")
    return run_id


def _experiment(client: MlflowClient, name: str) -> Experiment:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, _artifacts(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # created meanwhile by another process
                raise
        found = client.get_experiment_by_name(name)
        assert found is not None, "it existed a moment ago"
    return found


def _run_of(client: MlflowClient, experiment_id: str, job: str) -> str | None:
    found = client.search_runs([experiment_id], f"tags.`{JOB}` = '{job}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def end_interrupted(run_id: str) -> bool:
    """End an interrupted run as killed if it is still marked as running; return whether it was."""
    client = MlflowClient()
    running = bool(client.get_run(run_id).info.status == "RUNNING")
    if running:
        client.set_terminated(run_id, "KILLED")
    return running


def finish(run_id: str) -> None:
    """Mark a run as finished, whatever its status since an interruption."""
    MlflowClient().set_terminated(run_id, "FINISHED")


def name_with_version(run_id: str, model: str, version: int) -> None:
    """Put the number of the version that a run became into its name, as in `digits 4 epochs=2`.

    Without it, the runs of several `dvc repro` have one name. A name that a user gave stays.
    """
    client = MlflowClient()
    first, *rest = (client.get_run(run_id).info.run_name or "").split(" ")
    if first == model:
        changed = rest[1:] if rest and rest[0].isdecimal() else rest
        client.update_run(run_id, name=" ".join([model, str(version), *changed]))


def end_orphan(experiment: str, job: str) -> bool:
    """End a job's run as killed if it is still marked as running; return whether it was."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    run_id = _run_of(client, found.experiment_id, job) if found else None
    return run_id is not None and end_interrupted(run_id)


def _artifacts(experiment: str) -> str | None:
    """Return where an experiment's files go: beside our own database, or None to let a server decide."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(SQLITE):
        return None
    return str(Path(unquote(uri.removeprefix(SQLITE))).parent / mlflow_moved.ARTIFACTS / experiment)


def tag_run(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags on a run."""
    MlflowClient().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _dataset(manifest: Manifest, split: str, source: Path) -> DatasetInput:
    part = manifest.splits[split]
    dataset = Dataset(
        name=f"{manifest.data or manifest.task}/{split}",
        digest=part.sha256[:32],  # MLflow allows at most 36 characters
        source_type="local",
        source=json.dumps({"uri": str(source)}),
        profile=json.dumps({"samples": part.samples, "sha256": part.sha256}),
    )
    context = {"train": "training", "val": "validation", "test": "evaluation"}[split]
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def environment() -> dict[str, Any]:
    """Return the Python, platform and installed packages of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": dict(_packages()),
    }


@cache
def _packages() -> Mapping[str, str]:
    """Return the version of each package, read once because there are hundreds with long headers."""
    read = [distribution.metadata for distribution in importlib.metadata.distributions()]
    return dict(sorted((headers["Name"], headers["Version"]) for headers in read))


class _Row(NamedTuple):
    metrics: Mapping[str, float]
    step: int
    when: int
    file: Path | None


class Recorder:
    """Sends a run's metrics in order and once per step, however long the store is unreachable.

    Steps are updates, epochs, or anything else that increases. A thread sends the metrics; only `finish` waits
    for it.
    """

    def __init__(self, run_id: str) -> None:
        """Start the thread."""
        self._run_id = run_id
        self._rows: queue.Queue[_Row | None] = queue.Queue()
        self._stored: dict[str, set[int]] = {}
        self._rejected: set[str] = set()
        self._problem = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="send-metrics", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int, file: Path | None = None) -> None:
        """Queue the metrics of a step, and a file that becomes an artifact in its folder; return immediately."""
        named = {metric_name(name): value for name, value in metrics.items()}
        self._rows.put(_Row(named, step, int(time.time() * 1000), file))

    def finish(self) -> None:
        """Wait until all metrics are sent.

        Raises:
            PedigreeError: the store stays unreachable for ten minutes.
        """
        self._rows.put(None)
        self._thread.join(PAUSE)
        if self._thread.is_alive():
            log.info("waiting for MLflow at %s to accept metrics (%s)", mlflow.get_tracking_uri(), self._problem)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._closed.set()
            raise PedigreeError(
                f"MLflow at {mlflow.get_tracking_uri()} does not accept metrics ({self._problem}): restart MLflow "
                "and run the same command again, which resumes the training"
            )

    def _send_all(self) -> None:
        while (row := self._rows.get()) is not None:
            while not self._sent(row):
                if self._closed.wait(PAUSE):
                    return

    def _sent(self, row: _Row) -> bool:
        client = MlflowClient()
        try:
            new = {name: value for name, value in row.metrics.items() if row.step not in self._steps(client, name)}
            self._send(client, [Metric(name, value, row.when, row.step) for name, value in new.items()])
            if row.file:
                client.log_artifact(self._run_id, str(row.file), row.file.parent.name)
        except Exception as error:  # no failure of the store may end the training
            self._stored.clear()  # the store may or may not have carried out the request that failed
            if not self._problem:
                log.warning("MLflow does not accept metrics (%s): training continues, they are sent later", error)
            self._problem = (str(error).splitlines() or [type(error).__name__])[0]
            return False
        for name in new:
            self._steps(client, name).add(row.step)
        if self._problem:
            log.info("MLflow accepts metrics again")
            self._problem = ""
        return True

    def _steps(self, client: MlflowClient, name: str) -> set[int]:
        """Return the steps at which the store has this metric, including those of an earlier process."""
        if name not in self._stored:
            try:
                self._stored[name] = {metric.step for metric in client.get_metric_history(self._run_id, name)}
            except MlflowException as error:
                if error.error_code != REJECTED:
                    raise
                self._stored[name] = set()  # `_send` reports that the store rejects it
        return self._stored[name]

    def _send(self, client: MlflowClient, metrics: Sequence[Metric]) -> None:
        """Send the metrics of one step together; if the store rejects any, send the others one by one."""
        try:
            client.log_batch(self._run_id, metrics)
        except MlflowException as error:
            if error.error_code != REJECTED:
                raise
            if len(metrics) > 1:
                for metric in metrics:
                    self._send(client, [metric])
            elif metrics[0].key not in self._rejected:
                self._rejected.add(metrics[0].key)
                log.warning("MLflow rejects the metric %r, which will not be shown (%s)", metrics[0].key, error)


@contextmanager
def recording(run_id: str, seconds: float = 2) -> Iterator[Recorder]:
    """Yield a recorder of the run's metrics, record system metrics, and set the run's status at the end.

    Args:
        run_id: The run, new or resumed.
        seconds: Interval of the system metrics.
    """
    client = MlflowClient()
    client.update_run(run_id, status="RUNNING")
    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=seconds, tracking_uri=mlflow.get_tracking_uri(), resume_logging=True
    )
    monitor.start()
    recorder = Recorder(run_id)

    def end(status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        monitor.finish()
        client.set_terminated(run_id, status)

    try:
        yield recorder
        recorder.finish()
    except BaseException as error:
        status: Literal["FAILED", "KILLED"] = "FAILED" if isinstance(error, Exception) else "KILLED"
        # Ending a training must not wait for an unreachable store.
        ending = threading.Thread(target=end, args=(status,), name="end-run", daemon=True)
        ending.start()
        ending.join(5)
        raise
    end("FINISHED")


def log_metrics(run_id: str, metrics: Mapping[str, float]) -> None:
    """Log metrics on a run, running or not, except for those that already have this value."""
    client, now = MlflowClient(), int(time.time() * 1000)
    logged = client.get_run(run_id).data.metrics
    # Compared as text, because NaN is not equal to itself.
    named = {metric_name(name): value for name, value in metrics.items()}
    new = {name: value for name, value in named.items() if repr(logged.get(name)) != repr(value)}
    client.log_batch(run_id, [Metric(name, value, now, 0) for name, value in new.items()])


def log_folder(run_id: str, folder: Path, to: str) -> None:
    """Log a folder's files as artifacts of a run."""
    MlflowClient().log_artifacts(run_id, str(folder), to)


def log_evaluation(
    run_id: str, metrics: Mapping[str, float], folder: Path, manifest: Manifest, source: Path
) -> None:
    """Log an evaluation on its run: metrics under `test/`, tables, figures, and the data.

    Metrics of groups, such as `recall/Coat`, become rows of a table.
    """
    client = MlflowClient()
    log_metrics(run_id, {f"test/{name}": value for name, value in metrics.items() if "/" not in name})
    for name, rows in mlflow_pages.tables(metrics).items():
        mlflow_pages.log_table(run_id, name, rows)
    log_folder(run_id, folder, "evaluation")
    client.log_inputs(run_id, [_dataset(manifest, "test", source)])


def has_run(run_id: str) -> bool:
    """Return whether a run exists and is not deleted."""
    try:
        return bool(MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        expect_absent(error)
        return False


def metrics_of(run_id: str) -> Mapping[str, float]:
    """Return the latest metrics of a run; none if it does not exist."""
    try:
        found: Mapping[str, float] = MlflowClient().get_run(run_id).data.metrics
    except MlflowException as error:
        expect_absent(error)
        return {}
    return found


def describe_run(run_id: str, text: str) -> None:
    """Set the Markdown description on a run's page, replacing the note from its start."""
    tag_run(run_id, {MLFLOW_RUN_NOTE: for_pages(text)})
