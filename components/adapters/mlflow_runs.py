"""MLflow's runs: one for each job, however often it is interrupted, with every step once."""

import importlib.metadata
import json
import logging
import os
import platform
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from components.adapters import mlflow_moved
from components.adapters.mlflow_store import SQLITE, base, expect_absent, spaced
from components.contracts import Manifest
from components.errors import PedigreeError
from components.params import flat

log = logging.getLogger("pedigree.mlflow")

JOB = "job"
"""Tag of a run: the job that it tells of, by which a job that is taken up finds its run."""
PATIENCE = 600.0
"""Seconds that a finished training waits for a store that is away."""
PAUSE = 2.0
"""Seconds between two tries."""


def run_url(run_id: str) -> str:
    """Return the address of a run's page."""
    run = MlflowClient().get_run(run_id)
    return f"{base()}/#/experiments/{run.info.experiment_id}/runs/{run_id}"


def start_run(
    job: str, experiment: str, name: str, params: Mapping[str, Any], manifest: Manifest, source: Path
) -> str:
    """Start the one run of a job, or go on with it: its parameters, environment and data; return its id.

    Args:
        job: Names the job among all others.
        experiment: Made if it is not there.
        name: Of the run.
        params: What is there already stays as it is.
        manifest: Of the prepared data.
        source: Folder of the prepared data.
    """
    client = MlflowClient()
    experiment_id = _experiment(client, experiment)
    run_id = _run_of(client, experiment_id, job)
    if run_id is None:
        note = {MLFLOW_RUN_NOTE: manifest.note} if manifest.note else {}
        created: str = client.create_run(experiment_id, run_name=name, tags={JOB: job, **note}).info.run_id
        run_id = created
    there = client.get_run(run_id).data.params
    rest = [Param(key, str(value)) for key, value in flat(params).items() if key not in there]
    client.log_batch(run_id, params=rest)
    client.log_inputs(run_id, [_dataset(manifest, split, source) for split in ("train", "val")])
    client.log_dict(run_id, environment(), "environment.json")
    client.log_dict(run_id, manifest.model_dump(), "manifest.json")
    return run_id


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, _artifacts(name)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process made it meanwhile
            assert found is not None, "it was there a moment ago"
    return str(found.experiment_id)


def _run_of(client: MlflowClient, experiment_id: str, job: str) -> str | None:
    found = client.search_runs([experiment_id], f"tags.`{JOB}` = '{job}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def end_cut_off(run_id: str) -> None:
    """End a run as killed that still says that it is running, and at which nobody works."""
    client = MlflowClient()
    if client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id, "KILLED")


def finish(run_id: str) -> None:
    """Say that a run's job went well to its end, whatever was said of it when it was cut off."""
    MlflowClient().set_terminated(run_id, "FINISHED")


def end_left(experiment: str, job: str) -> bool:
    """End a job's run as killed, where it still says that it is running; tell whether it did."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    run_id = _run_of(client, found.experiment_id, job) if found else None
    if run_id is None or client.get_run(run_id).info.status != "RUNNING":
        return False
    client.set_terminated(run_id, "KILLED")
    return True


def _artifacts(experiment: str) -> str | None:
    """Return where an experiment's files go: beside a database of our own, and where a server says else."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(SQLITE):
        return None
    return str(Path(unquote(uri.removeprefix(SQLITE))).parent / mlflow_moved.ARTIFACTS / experiment)


def tag_run(run_id: str, tags: Mapping[str, str]) -> None:
    """Put tags on a run, by which people search."""
    MlflowClient().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _dataset(manifest: Manifest, split: str, source: Path) -> DatasetInput:
    part = manifest.splits[split]
    dataset = Dataset(
        name=f"{manifest.task}/{split}",
        digest=part.sha256[:32],  # MLflow keeps at most 36 characters
        source_type="local",
        source=json.dumps({"uri": str(source)}),
        profile=json.dumps({"samples": part.samples, "sha256": part.sha256}),
    )
    context = {"train": "training", "val": "validation", "test": "evaluation"}[split]
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def environment() -> dict[str, Any]:
    """Return what is installed here, and on what it runs."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": dict(_packages()),
    }


@cache
def _packages() -> Mapping[str, str]:
    """Return the version of each package, read once: there are hundreds, and each has a page of headers."""
    read = [distribution.metadata for distribution in importlib.metadata.distributions()]
    return dict(sorted((headers["Name"], headers["Version"]) for headers in read))


class _Row(NamedTuple):
    metrics: Mapping[str, float]
    step: int
    when: int


class Recorder:
    """Sends a run's metrics in the order in which they came, each step once, however long the store is away.

    A thread of its own does so: nothing waits for it before `finish`.
    """

    def __init__(self, run_id: str, mark: str) -> None:
        """Begin.

        Args:
            run_id: Whose metrics.
            mark: A metric that every step has, by which steps are known that were sent before.
        """
        self._run_id, self._mark = run_id, mark
        self._rows: queue.Queue[_Row | None] = queue.Queue()
        self._problem = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="send-metrics", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send a step's metrics; return at once."""
        self._rows.put(_Row(metrics, step, int(time.time() * 1000)))

    def finish(self) -> None:
        """Wait until all is sent.

        Raises:
            PedigreeError: the store stays away for ten minutes.
        """
        self._rows.put(None)
        self._thread.join(PAUSE)
        if self._thread.is_alive():
            log.info("waiting for MLflow at %s to take the metrics (%s)", mlflow.get_tracking_uri(), self._problem)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._closed.set()
            raise PedigreeError(
                f"MLflow at {mlflow.get_tracking_uri()} takes no metrics ({self._problem}): the training is kept; "
                "bring MLflow back and run the same command again"
            )

    def _send_all(self) -> None:
        while (row := self._rows.get()) is not None:
            while not self._sent(row):
                if self._closed.wait(PAUSE):
                    return

    def _sent(self, row: _Row) -> bool:
        client = MlflowClient()
        try:
            # Asked each time: of a request that failed nobody knows whether the store did as it was told.
            if row.step not in {metric.step for metric in client.get_metric_history(self._run_id, self._mark)}:
                client.log_batch(
                    self._run_id, [Metric(name, value, row.when, row.step) for name, value in row.metrics.items()]
                )
        except Exception as error:  # whatever it is, training goes on
            if not self._problem:
                log.warning("MLflow takes no metrics (%s): training goes on, and they are sent later", error)
            self._problem = (str(error).splitlines() or [type(error).__name__])[0]
            return False
        if self._problem:
            log.info("MLflow takes metrics again")
            self._problem = ""
        return True


@contextmanager
def recording(run_id: str, mark: str, seconds: float = 2) -> Iterator[Recorder]:
    """Give what sends the run's metrics, and record the machine's load; then end the run as what it was.

    Args:
        run_id: Of a run that began now, or goes on.
        mark: A metric that every step has.
        seconds: Between two records of the load.
    """
    client = MlflowClient()
    client.update_run(run_id, status="RUNNING")
    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=seconds, tracking_uri=mlflow.get_tracking_uri(), resume_logging=True
    )
    monitor.start()
    recorder = Recorder(run_id, mark)

    def end(status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        monitor.finish()
        client.set_terminated(run_id, status)

    try:
        yield recorder
        recorder.finish()
    except BaseException as error:
        status: Literal["FAILED", "KILLED"] = "FAILED" if isinstance(error, Exception) else "KILLED"
        # Whoever ends a training does not wait for a store that is away.
        ending = threading.Thread(target=end, args=(status,), name="end-run", daemon=True)
        ending.start()
        ending.join(5)
        raise
    end("FINISHED")


def log_metrics(run_id: str, metrics: Mapping[str, float]) -> None:
    """Put metrics on a run, whether it is running or not; one that is there with this very value stays as it is."""
    client, now = MlflowClient(), int(time.time() * 1000)
    there = client.get_run(run_id).data.metrics
    new = {name: value for name, value in metrics.items() if repr(there.get(name)) != repr(value)}  # NaN is itself
    client.log_batch(run_id, [Metric(name, value, now, 0) for name, value in new.items()])


def log_folder(run_id: str, folder: Path, to: str) -> None:
    """Put a folder's files on a run as artifacts."""
    MlflowClient().log_artifacts(run_id, str(folder), to)


def log_evaluation(
    run_id: str, metrics: Mapping[str, float], folder: Path, manifest: Manifest, source: Path
) -> None:
    """Put an evaluation on its run: metrics under `test/`, figures, and the data it was made on."""
    client = MlflowClient()
    log_metrics(run_id, {f"test/{name}": value for name, value in metrics.items()})
    log_folder(run_id, folder, "evaluation")
    client.log_inputs(run_id, [_dataset(manifest, "test", source)])


def has_run(run_id: str) -> bool:
    """Tell whether a run is still there; one that was deleted is not, though MLflow could restore it."""
    try:
        return bool(MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        expect_absent(error)
        return False


def describe_run(run_id: str, text: str) -> None:
    """Say on the run's page, in markdown, what there is to know of it, in place of what its beginning said."""
    tag_run(run_id, {MLFLOW_RUN_NOTE: spaced(text)})
