"""MLflow's registry: versions, what they keep, their aliases, and who was made champion, when and why."""

import importlib.metadata
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Map, ParamSchema, ParamSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from components import files, locks
from components.adapters.mlflow_store import base, expect_absent, spaced
from components.contracts import Kind, Served
from components.errors import DamagedError, PedigreeError, first_line
from components.trust import lineage

CHAMPION, CHALLENGER = "champion", "challenger"
_RECORD = "mlflow.pedigree."
"""What a tag begins with that only programs read. A version's page leaves out tags that begin with `mlflow.`, and
shows others whole in a narrow column, where the JSON of a lineage is seven screens long."""
PROMOTIONS = f"{_RECORD}promotions"
"""Tag of a registered model: who was made champion, when, by whom and why."""
REGISTRY = Path("build", ".registry")
"""In the project: a lock for each registered model."""
DONE = "done"
"""Record of a version: all is said of it."""
FILE = "file"
"""Metadata of a version: the input column that a file's content fills."""
FILES, RECORDS = "files", "records"
"""A version's records that hold the SHA-256 of the list of its files, and of all its other records."""
REQUEST = "serving_input_example.json"
"""Where MLflow keeps, among a version's files, the example as a request to its server."""
_COMPONENTS = Path(__file__).resolve().parents[1]
_SERVING = ("mlflow", "torch", "numpy", "safetensors", "pydantic", "ruamel.yaml")
"""What every served model imports."""


def version_url(name: str, version: int) -> str:
    """Return the address of a registered version's page."""
    return f"{base()}/#/models/{name}/versions/{version}"


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
    """Log a served model on the run and register it; return the new version, of which `done` is to be said at last.

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
    _forget_halves(run_id)
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
    return say(Version(name, int(info.registered_model_version), run_id, {}), tags, records)


def say(version: Version, tags: Mapping[str, str], records: Mapping[str, str]) -> Version:
    """Put tags on a version, by which people search, and records, which programs read; return it with both."""
    with tempfile.TemporaryDirectory(prefix="pedigree-") as scratch:  # MLflow adds files of its own to ours
        kept = {**records, FILES: _digest(fetch(version, Path(scratch)))}
    kept[RECORDS] = lineage.digest(kept)
    client = MlflowClient()
    for key, value in {**tags, **{f"{_RECORD}{key}": value for key, value in kept.items()}}.items():
        client.set_model_version_tag(version.name, str(version.version), key, value)
    client.set_tag(version.run_id, "version", f"{version.name}/{version.version}")
    told = {**version.tags, **tags, **kept}
    return Version(version.name, version.version, version.run_id, told, (*records, FILES))


def done(version: Version) -> None:
    """Say that all is said of a version and done with it."""
    MlflowClient().set_model_version_tag(version.name, str(version.version), f"{_RECORD}{DONE}", "true")


def cut_off(run_id: str, name: str) -> Version | None:
    """Return the version that a run was being registered as when its process ended, if there is one."""
    left = [each for each in versions() if (each.name, each.run_id) == (name, run_id) and DONE not in each.tags]
    return left[-1] if left else None


def _forget_halves(run_id: str) -> None:
    """Delete models of the run that were logged and never registered, because the process ended in between."""
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if MLFLOW_MODEL_VERSIONS not in model.tags:
            client.delete_logged_model(model.model_id)


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
        expect_absent(error)
        return None


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
            f"({first_line(error)}): look whether they were deleted"
        ) from None
    # Whoever loads a version straight from the store, as MLflow's own programs do, leaves Python's bytecode there.
    for bytecode in list(folder.rglob("__pycache__")):
        shutil.rmtree(bytecode)
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


def was_promoted(version: Version) -> bool:
    """Tell whether the version has become champion before; if it was cut off just then, end what was begun."""
    history = promotions(version.name)
    if history and history[-1]["version"] == version.version:
        set_alias(version, CHAMPION)
    return any(step["version"] == version.version for step in history)


def changing(name: str) -> AbstractContextManager[None]:
    """Let one process of this checkout at a time change which version of a model is champion."""
    return locks.alone(REGISTRY / f"{name}.lock", f"a change of the registered model {name}")


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
        expect_absent(error)
        asked = address if number or found.group(3) else f"{name}@{alias}"
        raise PedigreeError(f"there is no {asked}: {_known(client, name)}") from None
    return _version(version)


def _known(client: MlflowClient, name: str) -> str:
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        expect_absent(error)
        names = sorted(model.name for model in client.search_registered_models())
        return f"the registered models are {', '.join(names)}" if names else "no model is registered yet"
    numbers = sorted(version.version for version in versions() if version.name == name)
    aliases = [f"@{alias}" for alias in sorted(model.aliases)]
    return f"{name} has the versions {', '.join([*map(str, numbers), *aliases])}"


def _version(found: ModelVersion) -> Version:
    tags = {key.removeprefix(_RECORD): value for key, value in found.tags.items()}
    records = [key.removeprefix(_RECORD) for key in found.tags if key.startswith(_RECORD)]
    known = tuple(key for key in records if key not in {RECORDS, DONE})
    return Version(found.name, int(found.version), found.run_id or "", tags, known)


def versions() -> list[Version]:
    """Return all versions of all registered models, by name and number."""
    found = [_version(each) for each in MlflowClient().search_model_versions()]
    return sorted(found, key=lambda version: (version.name, version.version))


def describe(version: Version, text: str) -> None:
    """Say on the version's page, in markdown, what there is to know of it."""
    MlflowClient().update_model_version(version.name, str(version.version), description=spaced(text))


def set_alias(version: Version, alias: str) -> None:
    """Move an alias to this version."""
    MlflowClient().set_registered_model_alias(version.name, alias, str(version.version))
