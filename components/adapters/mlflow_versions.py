"""MLflow's model registry: versions, their files, tags and aliases, and the history of promotions."""

import importlib.metadata
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, ParamSchema, ParamSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from components.adapters import git
from components.adapters.mlflow_store import expect_absent, for_pages
from components.contracts import Kind, Served
from components.display import brief
from components.errors import DamagedError, PedigreeError, first_line
from components.runtime import files, locks
from components.trust import lineage

log = logging.getLogger("pedigree.versions")

CHAMPION, CHALLENGER = "champion", "challenger"
_RECORD = "mlflow.pedigree."
"""Prefix of tags that only programs read (records). MLflow's UI hides tags that start with `mlflow.`; it shows
others in full in a narrow column, where the JSON of a lineage fills seven screens."""
GATE = "the gate"
"""Who promoted a version that passed it."""
PROMOTIONS = f"{_RECORD}promotions"
"""Tag of a registered model: which versions were promoted, when, by whom and why."""
REGISTRY = Path("build", ".registry")
"""Below the project's folder: one lock per registered model."""
DONE = "done"
"""Record of a version: its registration is complete."""
SCORE = "score"
"""Tag of a version: name and value of the score on the test split."""
REASON = "reason"
"""Record of a version: the decision that followed from its verdict."""
FILE = "file"
"""Metadata of a version: the input column that a file's content fills."""
FILE_KIND = "file_kind"
"""Metadata of a version: the kind of that column, binary or string; older versions have it in their signature."""
LINES = "lines"
"""Metadata of a version: the params with which each line of a file is a row; older versions have none."""
COLUMNS, HEADER = "columns", "header"
"""Metadata of a version: the columns of its inputs in tables of texts, and whether these have a header; older
versions have none."""
READERS = "readers"
"""Metadata of a version: the suffixes of files that it reads itself; older versions have none."""
MEDIA = "media"
"""Metadata of a version: the media types of binary outputs; older versions have none."""
FORMATS = "formats"
"""Metadata of a version: the names of its formats of the field; older versions have none."""
OBJECTS = "objects"
"""Metadata of a version: which of these are JSON objects; older versions have none."""
FILES, RECORDS = "files", "records"
"""Records of a version: the SHA-256 of the list of its files, and of all its other records."""
REQUEST = "serving_input_example.json"
"""File of a version in which MLflow stores the example as a request to its server."""
_RUN_VERSION = "version"
"""Tag of a run: the last version that Pedigree registered from it, as `<name>/<version>`."""
_COMPONENTS = Path(__file__).resolve().parents[1]
_SERVED = Path(__file__).with_name("served_model.py")
_STORED_AS = f"{_SERVED.stem:_<240}.py"
"""Name of `served_model.py` in a version. MLflow loads it with Python's own loader, which prefers bytecode: here,
from a file in `__pycache__` whose name has 256 bytes, one more than file systems allow."""
_SERVING = ("mlflow", "torch", "numpy", "safetensors", "pydantic", "ruamel.yaml")
"""Distributions that every served model imports."""


class Promotion(TypedDict):
    """One promotion to champion."""

    version: int
    before: int | None
    """The champion that it replaced."""
    when: str
    who: str
    why: str
    back: bool
    """Whether this was a rollback."""


@dataclass(frozen=True)
class Version:
    """A registered version with its tags."""

    name: str
    version: int
    run_id: str
    tags: dict[str, str]
    records: tuple[str, ...] = ()
    """Keys of its records, except for their own hash."""
    recorded: bool = False
    """Whether it has a record at all."""
    created: float = 0.0
    """When it was registered, in seconds since 1970; 0 in what `register` returns."""


def register(
    run_id: str,
    name: str,
    parts: Mapping[str, Path],
    served: Served,
    tags: Mapping[str, str],
    records: Mapping[str, str],
) -> Version:
    """Log a served model on the run and register it; return the new version. Call `mark_complete` at the end.

    The version includes the source of `components` and exact requirements, so that `mlflow models serve` and
    `predict` work on it outside this checkout.

    Args:
        run_id: The run that produced it.
        name: Name of the registered model.
        parts: Files of the version by name; `model` is the folder that the served model is rebuilt from.
        served: The model's interface.
        tags: Tags of the version that users search by.
        records: Tags of the version that only programs read.
    """
    _delete_unregistered(run_id)
    with (
        tempfile.TemporaryDirectory(prefix="pedigree-") as scratch,
        mlflow.start_run(run_id=run_id, log_system_metrics=False),
    ):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=shutil.copy(_SERVED, Path(scratch, _STORED_AS)),
            artifacts={part: str(path) for part, path in parts.items()},
            code_paths=[str(path) for path in _sealed_source(Path(scratch, "source"))],
            signature=_signature(served),
            input_example=pd.DataFrame([served.example]) if served.inputs else None,
            pip_requirements=[_requirement(name) for name in (*_SERVING, *served.requirements)],
            metadata=_metadata(served),
        )
    # With its tags, as MLflow takes long to add them one by one.
    created = mlflow.register_model(info.model_uri, name, tags=_tags(tags, records))
    return _with_hashes(Version(name, int(created.version), run_id, {}), tags, records)


def _metadata(served: Served) -> dict[str, Any] | None:
    lines = {} if served.lines is None else {LINES: dict(served.lines)}
    media = {MEDIA: dict(served.media)} if served.media else {}
    formats = {FORMATS: [*served.formats, *served.objects]} if served.formats or served.objects else {}
    objects = {OBJECTS: list(served.objects)} if served.objects else {}
    table = {COLUMNS: dict(served.columns), HEADER: served.header} if served.columns else {}
    readers = {READERS: list(served.readers)} if served.readers else {}
    file = {FILE: served.file, FILE_KIND: served.inputs[served.file], **lines} if served.file else {}
    return file | table | readers | media | formats | objects or None


def _sealed_source(folder: Path) -> list[Path]:
    """Copy the source of `components` into a new folder, with the hash of each file; return what is in the folder.

    `served_model.py` imports only what has such a hash. Files that may hold secrets are not copied.
    """
    left_out = []
    for path in filter(Path.is_file, _COMPONENTS.rglob("*")):
        name = path.relative_to(_COMPONENTS.parent)
        if "__pycache__" in name.parts:
            continue
        if git.may_hold_secrets(name.as_posix()):
            left_out.append(name.as_posix())
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    if left_out:
        log.warning("not stored with the version, as they may hold secrets: %s", ", ".join(sorted(left_out)))
    files.seal(folder)
    return sorted(folder.iterdir())


def _requirement(name: str) -> str:
    """Return an installed distribution as an exact requirement, without a local label, such as the +cpu of torch.

    The public index has no labelled versions, and a plain requirement also accepts labelled ones (PEP 440).
    """
    return f"{name}=={importlib.metadata.version(name).partition('+')[0]}"


def tag_version(version: Version, tags: Mapping[str, str], records: Mapping[str, str]) -> Version:
    """Set a version's tags, which users search by, and records, which programs read; return it with both."""
    _set_tags(version, _tags(tags, records))
    return _with_hashes(version, tags, records)


def _with_hashes(version: Version, tags: Mapping[str, str], records: Mapping[str, str]) -> Version:
    """Add the hashes of a version's files and records; return it with all its tags and records."""
    # Fetched, as MLflow adds files of its own; and checked, if an interrupted registration got this far.
    fetched = fetch if FILES in version.tags else _download
    with tempfile.TemporaryDirectory(prefix="pedigree-") as scratch:
        hashes = {FILES: _digest(fetched(version, Path(scratch)))}
    hashes[RECORDS] = lineage.digest({**records, **hashes})
    _set_tags(version, _tags({}, hashes))
    MlflowClient().set_tag(version.run_id, _RUN_VERSION, f"{version.name}/{version.version}")
    all_tags = {**version.tags, **tags, **records, **hashes}
    return Version(version.name, version.version, version.run_id, all_tags, (*records, FILES), recorded=True)


def _tags(tags: Mapping[str, str], records: Mapping[str, str]) -> dict[str, str]:
    """Return tags and records as MLflow stores them."""
    return {**tags, **{f"{_RECORD}{key}": value for key, value in records.items()}}


def _set_tags(version: Version, tags: Mapping[str, str]) -> None:
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(version.name, str(version.version), key, value)


def mark_complete(version: Version) -> None:
    """Record that a version's registration is complete."""
    MlflowClient().set_model_version_tag(version.name, str(version.version), f"{_RECORD}{DONE}", "true")


def interrupted(run_id: str, name: str) -> Version | None:
    """Return the version of a run whose registration was interrupted, if there is one."""
    incomplete = [
        each for each in versions() if (each.name, each.run_id) == (name, run_id) and DONE not in each.tags
    ]
    return incomplete[-1] if incomplete else None


def _delete_unregistered(run_id: str) -> None:
    """Delete the run's models that an interrupted process logged and did not register."""
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if MLFLOW_MODEL_VERSIONS not in model.tags:
            client.delete_logged_model(model.model_id)


def _digest(folder: Path) -> str:
    return lineage.digest(files.listing(folder))


def expect_intact(version: Version) -> None:
    """Check a version's records against their hash, which only a version registered by hand may lack.

    Raises:
        DamagedError: the records are damaged, or their hash is missing.
    """
    expected = version.tags.get(RECORDS)
    if expected is None and _is_ours(version):
        raise _unhashed(version)
    if expected and expected != lineage.digest({key: version.tags.get(key) for key in version.records}):
        raise DamagedError(
            f"the tags of {version.name} version {version.version} in MLflow's database are damaged: restore an "
            "older copy of the database, or train again"
        )


def _is_ours(version: Version) -> bool:
    """Return whether Pedigree registered a version: it has a record, or else its run names it.

    Without both, `fetch` still recognizes the version by the code in it.
    """
    if version.recorded or not version.run_id:
        return version.recorded
    try:
        run = MlflowClient().get_run(version.run_id)
    except MlflowException as error:
        expect_absent(error)
        return False
    return bool(run.data.tags.get(_RUN_VERSION) == f"{version.name}/{version.version}")


def _unhashed(version: Version) -> DamagedError:
    return DamagedError(
        f"{version.name} version {version.version} lacks the hashes that Pedigree recorded in its tags, so nothing "
        "shows that it is what was registered: restore an older copy of MLflow's database, or run the command that "
        "registers it again"
    )


def _signature(served: Served) -> ModelSignature:
    # Of any type: MLflow's server would decode and convert the values before the version sees them, and reject some
    # with an error that names no row. The version itself checks each row.
    inputs = [ColSpec(AnyType(), name, required=name not in served.optional) for name in served.inputs]
    outputs = [ColSpec(_type(kind), name) for name, kind in served.outputs.items()]
    params = [_param(name, value) for name, value in served.params.items()]
    optional = {"params": ParamSchema(params)} if params else {}
    # MLflow has no schema without columns, so a model without inputs has no input schema.
    return ModelSignature(Schema([*inputs]) if inputs else None, Schema([*outputs]), **optional)


def _param(name: str, default: bool | int | float | str | type[float]) -> ParamSpec:
    if isinstance(default, type):
        return ParamSpec(name, _PARAM_TYPES[default], None)
    return ParamSpec(name, _PARAM_TYPES[type(default)], default)


_PARAM_TYPES = {bool: DataType.boolean, int: DataType.long, float: DataType.double, str: DataType.string}


def _type(kind: Kind) -> DataType | Array | Map | AnyType:
    compound: dict[str, Array | Map | AnyType] = {
        "binaries": Array(DataType.binary),
        "strings": Array(DataType.string),
        "doubles": Array(DataType.double),
        "map": Map(DataType.double),
        "records": AnyType(),
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
class VersionFiles:
    """The files of a version."""

    model: Path
    """Folder that the served model is rebuilt from."""
    outcomes: Path
    """Results on each test sample."""
    metrics: Path


def files_of(version: Version, to: Path) -> VersionFiles:
    """Fetch a version's files into the folder `to`.

    Raises:
        PedigreeError: they are no longer in the store.
    """
    parts = fetch(version, to) / "artifacts"
    models = [file.parent for file in parts.glob("*/weights.safetensors")]
    return VersionFiles((models or [parts])[0], parts / "outcomes.csv", parts / "metrics.json")


def fetch(version: Version, to: Path) -> Path:
    """Fetch all files of a version into the folder `to`; return the folder that MLflow can load.

    Raises:
        DamagedError: they differ from those that were registered, or it has lost the hash that would show it.
        PedigreeError: they are no longer in the store.
    """
    expect_intact(version)
    folder = _download(version, to)
    expected = version.tags.get(FILES)
    if expected is None and (folder / "code" / _COMPONENTS.name / "adapters" / _SERVED.name).exists():
        raise _unhashed(version)
    if expected is not None and expected != _digest(folder):
        raise _changed(version)
    return folder


def check(version: Version) -> None:
    """Fetch a version's files only to check them; raises as `fetch` does."""
    with tempfile.TemporaryDirectory(prefix="pedigree-") as scratch:
        fetch(version, Path(scratch))


def _download(version: Version, to: Path) -> Path:
    """Download a version's files into a new folder in `to`, without bytecode; raises as `fetch` does."""
    to.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="version-", dir=to))
    address = f"models:/{version.name}/{version.version}"
    try:
        downloaded = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        while folder.exists():  # MLflow's threads may still be writing there
            shutil.rmtree(folder, ignore_errors=True)
        if getattr(error, "error_code", None) == _INVALID:
            raise _changed(version, f" ({first_line(error)})") from None
        raise PedigreeError(
            f"the files of {version.name} version {version.version} cannot be read from MLflow's store "
            f"({first_line(error)}): check whether they were deleted"
        ) from None
    # Programs that load a version directly from the store, such as MLflow's, leave bytecode there.
    for bytecode in list(downloaded.rglob("__pycache__")):
        if bytecode.is_dir():  # a file of this name is a change, and what was inside another such folder is gone
            shutil.rmtree(bytecode)
    return downloaded


_INVALID = "INVALID_PARAMETER_VALUE"
"""MLflow's code of an error about files that it does not read, such as a link that leaves the version's folder."""


def _changed(version: Version, reason: str = "") -> DamagedError:
    return DamagedError(
        f"the files of {version.name} version {version.version} in MLflow's store differ from those that were "
        f"registered{reason}: restore them from a copy of the store, or train again"
    )


def promote(version: Version, who: str, why: str, back: bool = False) -> None:
    """Make a version the champion; record who did so, when and why, and whether it was a rollback."""
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
    record = {"sha256": lineage.digest(history), "steps": history}  # one tag, as a tag is written atomically
    client.set_registered_model_tag(version.name, PROMOTIONS, json.dumps(record))
    how = ", in a rollback" if back else ""
    promoted = f"{step['when']} by {who}{how}: {why}"  # shown beside a verdict that may have failed
    client.set_model_version_tag(version.name, str(version.version), "promoted", promoted)
    set_alias(version, CHAMPION)


def was_promoted(version: Version) -> bool:
    """Return whether the version was promoted before; complete its promotion if that was interrupted."""
    history = promotions(version.name)
    if history and history[-1]["version"] == version.version:
        set_alias(version, CHAMPION)
    return any(step["version"] == version.version for step in history)


def changing(name: str) -> AbstractContextManager[None]:
    """Hold the lock under which processes of this checkout change a model's champion."""
    return locks.alone(REGISTRY / f"{name}.lock", f"a change of the registered model {name}")


def promotions(name: str) -> list[Promotion]:
    """Return all promotions of a registered model, the earliest first.

    Raises:
        DamagedError: their record is damaged.
    """
    text = MlflowClient().get_registered_model(name).tags.get(PROMOTIONS)
    if text is None:
        return []
    try:
        record = json.loads(text)
        if isinstance(record, list):  # the format of earlier versions, without a hash
            return record
        steps: list[Promotion] = record["steps"]
        intact = bool(record["sha256"] == lineage.digest(steps))
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise DamagedError(
            f"the record of {name}'s promotions in MLflow's database is damaged: restore an older copy of the "
            f"database, or delete the tag {PROMOTIONS} of the registered model {name} to start over"
        )
    return steps


def find(address: str) -> Version:
    """Return the version at `models:/<name>/<version>` or `models:/<name>@<alias>`; `models:/` is optional.

    A name alone means its champion.

    Raises:
        PedigreeError: there is no such version.
    """
    match = re.fullmatch(r"(?:models:/)?([^/@]+)(?:/(\d+)|@(.+))?", address)
    if not match:
        raise PedigreeError(
            f"{brief(address)} names no version: write models:/<name>/<version> or models:/<name>@<alias>"
        )
    name, number, alias = match.group(1), match.group(2), match.group(3) or CHAMPION
    client = MlflowClient()
    try:
        version = (
            client.get_model_version(name, number) if number else client.get_model_version_by_alias(name, alias)
        )
    except MlflowException as error:
        expect_absent(error)
        if not number and alias == CHAMPION and (last := version_at(name, CHALLENGER)):
            raise PedigreeError(without_champion(last)) from None
        asked = address if number or match.group(3) else f"{name}@{alias}"
        raise PedigreeError(f"there is no {asked}: {_choices(client, name)}") from None
    return _version(version)


def without_champion(challenger: Version) -> str:
    """Return, for a model whose last version is only a challenger, why it has no champion, and what to do."""
    name, number = challenger.name, challenger.version
    why = challenger.tags.get(REASON, "").partition(": ")[2]
    failed = f", as version {number} failed the gate ({why})" if why else ""
    return (
        f"{name} has no champion{failed}: name {name}@{CHALLENGER} or {name}/{number} instead, promote it with "
        f"`pedigree promote {name} {number} --why …`, or change the bounds in register.gate of {name} in "
        "params.yaml and run it again"
    )


def _choices(client: MlflowClient, name: str) -> str:
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
    hashed = tuple(key for key in records if key not in {RECORDS, DONE})
    created = (found.creation_timestamp or 0) / 1000
    return Version(found.name, int(found.version), found.run_id or "", tags, hashed, bool(records), created)


def versions() -> list[Version]:
    """Return all versions of all registered models, sorted by name and number."""
    found = [_version(each) for each in MlflowClient().search_model_versions()]
    return sorted(found, key=lambda version: (version.name, version.version))


def of_model(name: str) -> list[Version]:
    """Return the versions of a registered model, sorted by number.

    Raises:
        PedigreeError: there is none.
    """
    found = [version for version in versions() if version.name == name]
    if not found:
        raise PedigreeError(f"{name} has no version: {_choices(MlflowClient(), name)}")
    return found


def aliases(name: str) -> dict[str, int]:
    """Return the aliases of a registered model, and the version that carries each."""
    found = MlflowClient().get_registered_model(name).aliases
    return {alias: int(version) for alias, version in found.items()}


def set_description(version: Version, text: str) -> None:
    """Set the Markdown description on a version's page."""
    MlflowClient().update_model_version(version.name, str(version.version), description=for_pages(text))


def set_alias(version: Version, alias: str) -> None:
    """Move an alias to this version."""
    MlflowClient().set_registered_model_alias(version.name, alias, str(version.version))
