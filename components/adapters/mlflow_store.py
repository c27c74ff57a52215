"""MLflow: runs, registered versions and their aliases; served_model and served_files have how versions answer."""

import importlib.metadata
import json
import os
import platform
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import quote, unquote

# MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
# Its server's workers judge language models by others; nobody here asks that, and they take seconds to start.
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.types.schema import Array, ColSpec, DataType, Map, ParamSchema, ParamSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from components import files
from components.adapters import mlflow_moved
from components.contracts import Kind, Manifest, Served
from components.errors import DamagedError, PedigreeError
from components.params import flat
from components.trust import lineage

UI = "http://127.0.0.1:5000"
"""Where `pedigree up` and `make ui` serve MLflow's pages."""
CHAMPION, CHALLENGER = "champion", "challenger"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
"""MLflow's codes for what is not there; an alias that is not set is an invalid value."""
_SQLITE = "sqlite:///"
_RECORD = "mlflow.pedigree."
"""What a tag begins with that only programs read. A version's page leaves out tags that begin with `mlflow.`, and
shows others whole in a narrow column, where the JSON of a lineage is seven screens long."""
PROMOTIONS = f"{_RECORD}promotions"
"""Tag of a registered model: who was made champion, when, by whom and why."""
FILE = "file"
"""Metadata of a version: the input column that a file's content fills."""
FILES, RECORDS = "files", "records"
"""A version's records that hold the SHA-256 of the list of its files, and of all its other records."""
REQUEST = "serving_input_example.json"
"""Where MLflow keeps, among a version's files, the example as a request to its server."""
_COMPONENTS = Path(__file__).resolve().parents[1]
_SERVING = ("mlflow", "torch", "numpy", "safetensors", "pydantic", "ruamel.yaml")
"""What every served model imports."""


def connect(root: Path) -> None:
    """Use the store at MLFLOW_TRACKING_URI, or else the project's own mlflow.db, made here if it is not there.

    Raises:
        PedigreeError: the server does not answer.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    uri = given or store_beside(root)
    mlflow.set_tracking_uri(uri)
    if not given:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # which MLflow has just set: that is for the user to do
    if uri.startswith("http"):
        _expect_server(uri)
    else:
        lock = root / "build" / ".mlflow.lock"
        lock.parent.mkdir(exist_ok=True)
        with FileLock(lock):  # of several processes that make the tables of a new database at once, some die
            if not given:
                mlflow_moved.follow(root / "mlflow.db")
            MlflowClient().search_experiments(max_results=1)


def store_beside(root: Path) -> str:
    """Return the address of the store in a folder; SQLAlchemy takes % and ? in it for its own."""
    return f"{_SQLITE}{quote(str(root / 'mlflow.db'))}"


def _expect_server(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5).close()  # noqa: S310 - http, checked above
    except OSError as error:
        raise PedigreeError(
            f"MLflow does not answer at {uri} ({error}): start it, "
            "or unset MLFLOW_TRACKING_URI to use this project's own mlflow.db"
        ) from None


def tracking_uri() -> str:
    """Return the address of the store in use, for a process that is to use the same."""
    return str(mlflow.get_tracking_uri())


def run_url(run_id: str) -> str:
    """Return the address of a run's page."""
    run = MlflowClient().get_run(run_id)
    return f"{_base()}/#/experiments/{run.info.experiment_id}/runs/{run_id}"


def version_url(name: str, version: int) -> str:
    """Return the address of a registered version's page."""
    return f"{_base()}/#/models/{name}/versions/{version}"


def _base() -> str:
    uri = mlflow.get_tracking_uri()
    return uri.rstrip("/") if uri.startswith("http") else UI


def start_run(experiment: str, name: str, params: Mapping[str, Any], manifest: Manifest, source: Path) -> str:
    """Start the one run of a job: its parameters, environment and data; return its id."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment, _artifacts(experiment))
    note = {MLFLOW_RUN_NOTE: manifest.note} if manifest.note else {}
    run_id: str = client.create_run(experiment_id, run_name=name, tags=note).info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in flat(params).items()])
    client.log_inputs(run_id, [_dataset(manifest, split, source) for split in ("train", "val")])
    client.log_dict(run_id, environment(), "environment.json")
    client.log_dict(run_id, manifest.model_dump(), "manifest.json")
    return run_id


def _artifacts(experiment: str) -> str | None:
    """Return where an experiment's files go: beside a database of our own, and where a server says else."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(_SQLITE):
        return None
    return str(Path(unquote(uri.removeprefix(_SQLITE))).parent / mlflow_moved.ARTIFACTS / experiment)


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
    packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": dict(sorted(packages.items())),
    }


@contextmanager
def recording(run_id: str, seconds: float = 2) -> Iterator[None]:
    """Record the machine's load on the run while the block runs, then end the run as what it was."""
    monitor = SystemMetricsMonitor(run_id, sampling_interval=seconds, tracking_uri=mlflow.get_tracking_uri())
    monitor.start()
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        monitor.finish()
        MlflowClient().set_terminated(run_id, status)


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Put metrics on a run, whether it is running or not."""
    now = int(time.time() * 1000)
    MlflowClient().log_batch(run_id, [Metric(name, value, now, step) for name, value in metrics.items()])


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


class Promotion(TypedDict):
    """That a version became champion."""

    version: int
    before: int | None
    """The champion that it replaced."""
    when: str
    who: str
    why: str
    back: bool
    """The champion before it was taken back."""


@dataclass(frozen=True)
class Version:
    """A registered version and what was said of it when it was registered."""

    name: str
    version: int
    run_id: str
    tags: dict[str, str]
    records: tuple[str, ...] = ()
    """Keys of the tags that programs read, but for their own hash."""


def register(
    run_id: str,
    name: str,
    parts: Mapping[str, Path],
    served: Served,
    tags: Mapping[str, str],
    records: Mapping[str, str],
) -> Version:
    """Log a served model on the run and register it; return the new version.

    Args:
        run_id: The run that made it.
        name: Of the registered model.
        parts: Files that the version keeps, by name; `model` is the folder that the served model is rebuilt from.
        served: What a request and an answer hold.
        tags: Of the version, by which people search.
        records: More of its tags, which programs read and the version's page leaves out.

    The version holds the source of `components` and exact requirements, so that `mlflow models serve` and
    `predict` work on it outside this checkout.
    """
    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={part: str(path) for part, path in parts.items()},
            code_paths=[str(_COMPONENTS)],
            signature=_signature(served),
            input_example=pd.DataFrame([served.example]),
            pip_requirements=[
                f"{name}=={importlib.metadata.version(name)}" for name in (*_SERVING, *served.requirements)
            ],
            registered_model_name=name,
            metadata={FILE: served.file} if served.file else None,
        )
    version = int(info.registered_model_version)
    with tempfile.TemporaryDirectory(prefix="pedigree-") as scratch:  # MLflow adds files of its own to ours
        kept = {**records, FILES: _digest(fetch(Version(name, version, run_id, {}), Path(scratch)))}
    kept[RECORDS] = lineage.digest(kept)
    client = MlflowClient()
    for key, value in {**tags, **{f"{_RECORD}{key}": value for key, value in kept.items()}}.items():
        client.set_model_version_tag(name, str(version), key, value)
    client.set_tag(run_id, "version", f"{name}/{version}")
    return Version(name, version, run_id, {**tags, **kept}, (*records, FILES))


def _digest(folder: Path) -> str:
    return lineage.digest(files.listing(folder))


def expect_intact(version: Version) -> None:
    """Check what programs read from a version's tags; one that was registered by hand has no hash of them.

    Raises:
        DamagedError: they are not what was written.
    """
    known = version.tags.get(RECORDS)
    if known and known != lineage.digest({key: version.tags.get(key) for key in version.records}):
        raise DamagedError(
            f"what MLflow's database says of {version.name} version {version.version} is damaged: bring an older "
            "copy of the database back, or train again"
        )


def _signature(served: Served) -> ModelSignature:
    inputs = [ColSpec(_type(k), name, required=name not in served.optional) for name, k in served.inputs.items()]
    outputs = [ColSpec(_type(kind), name) for name, kind in served.outputs.items()]
    params = [ParamSpec(name, _PARAM_TYPES[type(value)], value) for name, value in served.params.items()]
    taken = {"params": ParamSchema(params)} if params else {}
    return ModelSignature(Schema([*inputs]), Schema([*outputs]), **taken)


_PARAM_TYPES = {bool: DataType.boolean, int: DataType.long, float: DataType.double, str: DataType.string}


def _type(kind: Kind) -> DataType | Array | Map:
    compound: dict[str, Array | Map] = {
        "strings": Array(DataType.string),
        "doubles": Array(DataType.double),
        "map": Map(DataType.double),
    }
    return compound[kind] if kind in compound else DataType[kind]


def version_at(name: str, alias: str) -> Version | None:
    """Return the version that carries an alias, or None."""
    try:
        return _version(MlflowClient().get_model_version_by_alias(name, alias))
    except MlflowException as error:
        _expect_absent(error)
        return None


def _expect_absent(error: MlflowException) -> None:
    """Let pass what says that something is not there, and nothing else: a store out of reach is no empty store."""
    if error.error_code not in _ABSENT:
        raise PedigreeError(
            f"MLflow at {mlflow.get_tracking_uri()} does not answer as it should ({_first_line(error)}): "
            "look at it, and run the same command again"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Kept:
    """The files that a version keeps."""

    model: Path
    """Folder that the served model is rebuilt from."""
    outcomes: Path
    """What each test sample adds to the score."""
    metrics: Path


def files_of(version: Version, to: Path) -> Kept:
    """Fetch a version's files into the folder `to`.

    Raises:
        PedigreeError: the store has them no longer.
    """
    parts = fetch(version, to) / "artifacts"
    models = [file.parent for file in parts.glob("*/weights.safetensors")]
    return Kept((models or [parts])[0], parts / "outcomes.csv", parts / "metrics.json")


def fetch(version: Version, to: Path) -> Path:
    """Fetch all of a version's files into the folder `to`; return the folder that MLflow can load.

    Raises:
        DamagedError: they are not those that were registered.
        PedigreeError: the store has them no longer.
    """
    expect_intact(version)
    try:
        folder = Path(
            mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}", dst_path=str(to))
        )
    except (MlflowException, OSError) as error:
        raise PedigreeError(
            f"the files of {version.name} version {version.version} cannot be had from MLflow's store "
            f"({_first_line(error)}): look whether they were deleted"
        ) from None
    if version.tags.get(FILES, _digest(folder)) != _digest(folder):
        raise DamagedError(
            f"the files of {version.name} version {version.version} in MLflow's store are not those that were "
            "registered: bring them back from a copy of the store, or train again"
        )
    return folder


def promote(version: Version, who: str, why: str, back: bool = False) -> None:
    """Make a version the champion, and keep who did so, when and why, and whether it was a step back."""
    client = MlflowClient()
    champion = version_at(version.name, CHAMPION)
    step: Promotion = {
        "version": version.version,
        "before": champion.version if champion else None,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": who,
        "why": why,
        "back": back,
    }
    history = [*promotions(version.name), step]
    kept = {"sha256": lineage.digest(history), "steps": history}  # in one tag, which is written whole or not at all
    client.set_registered_model_tag(version.name, PROMOTIONS, json.dumps(kept))
    told = f"{step['when']} by {who}: {why}"  # beside a verdict that may have said no
    client.set_model_version_tag(version.name, str(version.version), "promoted", told)
    set_alias(version, CHAMPION)


def promotions(name: str) -> list[Promotion]:
    """Return every promotion of a registered model, the first one first.

    Raises:
        DamagedError: what the database says of them is not what was written.
    """
    text = MlflowClient().get_registered_model(name).tags.get(PROMOTIONS)
    if text is None:
        return []
    try:
        kept = json.loads(text)
        if isinstance(kept, list):  # as it was kept before it had a hash
            return kept
        steps: list[Promotion] = kept["steps"]
        intact = bool(kept["sha256"] == lineage.digest(steps))
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise DamagedError(
            f"what MLflow's database says of {name}'s promotions is damaged: bring an older copy of the database "
            f"back, or delete the tag {PROMOTIONS} of the registered model {name} to begin anew"
        )
    return steps


def find(address: str) -> Version:
    """Return the version at `models:/<name>/<version>` or `models:/<name>@<alias>`; `models:/` may be left out.

    A name alone is its champion.

    Raises:
        PedigreeError: there is none.
    """
    found = re.fullmatch(r"(?:models:/)?([^/@]+)(?:/(\d+)|@(.+))?", address)
    if not found:
        raise PedigreeError(
            f"{address!r} names no version: write models:/<name>/<version> or models:/<name>@<alias>"
        )
    name, number, alias = found.group(1), found.group(2), found.group(3) or CHAMPION
    client = MlflowClient()
    try:
        version = (
            client.get_model_version(name, number) if number else client.get_model_version_by_alias(name, alias)
        )
    except MlflowException as error:
        _expect_absent(error)
        asked = address if number or found.group(3) else f"{name}@{alias}"
        raise PedigreeError(f"there is no {asked}: {_known(client, name)}") from None
    return _version(version)


def _known(client: MlflowClient, name: str) -> str:
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        _expect_absent(error)
        names = sorted(model.name for model in client.search_registered_models())
        return f"the registered models are {', '.join(names)}" if names else "no model is registered yet"
    numbers = sorted(version.version for version in versions() if version.name == name)
    aliases = [f"@{alias}" for alias in sorted(model.aliases)]
    return f"{name} has the versions {', '.join([*map(str, numbers), *aliases])}"


def _version(found: ModelVersion) -> Version:
    tags = {key.removeprefix(_RECORD): value for key, value in found.tags.items()}
    records = [key.removeprefix(_RECORD) for key in found.tags if key.startswith(_RECORD)]
    known = tuple(key for key in records if key != RECORDS)
    return Version(found.name, int(found.version), found.run_id or "", tags, known)


def versions() -> list[Version]:
    """Return all versions of all registered models, by name and number."""
    found = [_version(each) for each in MlflowClient().search_model_versions()]
    return sorted(found, key=lambda version: (version.name, version.version))


def has_run(run_id: str) -> bool:
    """Tell whether a run is still there; one that was deleted is not, though MLflow could restore it."""
    try:
        return bool(MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        _expect_absent(error)
        return False


def describe(version: Version, text: str) -> None:
    """Say on the version's page, in markdown, what there is to know of it."""
    MlflowClient().update_model_version(version.name, str(version.version), description=_spaced(text))


def describe_run(run_id: str, text: str) -> None:
    """Say on the run's page, in markdown, what there is to know of it, in place of what its beginning said."""
    tag_run(run_id, {MLFLOW_RUN_NOTE: _spaced(text)})


def _spaced(markdown: str) -> str:
    """Keep the columns of tables apart: MLflow's pages let them touch, and spaces at a cell's end are dropped."""
    return markdown.replace(" | ", "\N{NO-BREAK SPACE}\N{NO-BREAK SPACE} | ")


def set_alias(version: Version, alias: str) -> None:
    """Move an alias to this version."""
    MlflowClient().set_registered_model_alias(version.name, alias, str(version.version))
