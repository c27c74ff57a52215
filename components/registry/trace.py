"""Traces a registered version to its code, data and parameters, and data to the versions trained on them."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from components.adapters import dvc_cache, git, mlflow_runs, mlflow_versions
from components.adapters.mlflow_versions import Version
from components.contracts import Manifest
from components.errors import DamagedError, PedigreeError
from components.jobs import sources
from components.models import BUILD
from components.registry import promote
from components.runtime import files
from components.training import model_files
from components.trust import gate, lineage, old_versions
from components.trust.lineage import NONE, Lineage, Source

HERE, REMOTE, GONE, CHANGED, DAMAGED = "here", "in DVC's remote", "gone", "changed", "damaged"


@dataclass(frozen=True)
class Ancestor:
    """A line of the ancestry: what it is, which one, and whether it still exists."""

    what: str
    which: str
    where: str = ""
    parents: Sequence["Ancestor"] = field(default_factory=tuple)


def lineage_of(version: Version) -> Lineage:
    """Return a version's lineage from its tags.

    Raises:
        PedigreeError: it has no lineage, because it was registered by hand, or its lineage is damaged.
    """
    mlflow_versions.expect_intact(version)
    text, name = version.tags.get(lineage.TAG), f"{version.name} version {version.version}"
    if text is None:
        raise PedigreeError(
            f"{name} was registered without a lineage: only `pedigree run` and `dvc repro` write one"
        )
    return lineage.parse(text, f"the lineage of {name}")


def trace(address: str, root: Path) -> Ancestor:
    """Return a version's ancestry, and which parts are here, in DVC's remote, or gone.

    Raises:
        PedigreeError: there is no such version, or it has no lineage.
    """
    version = mlflow_versions.find(address)
    ancestry = lineage_of(version)
    raw = f"{old_versions.data_folder(ancestry)} {ancestry.data.raw}"
    data = Ancestor("data", raw, _data(ancestry, root))
    commit = git.has(root, ancestry.code.commit)
    code = Ancestor(
        "code",
        f"commit {ancestry.code.commit}{f', with {changes}' if (changes := ancestry.code.changes) else ''}",
        "" if ancestry.code.commit == NONE else HERE if commit else GONE,
    )
    run = Ancestor(
        "run",
        f"MLflow {ancestry.runs.mlflow}, Prefect {ancestry.runs.prefect}, started {ancestry.started}",
        HERE if mlflow_runs.has_run(ancestry.runs.mlflow) else GONE,
    )
    machine = Ancestor(
        "machine",
        f"{ancestry.machine.device}, {ancestry.machine.world} worker(s), Python {ancestry.machine.python}",
    )
    prepared = HERE if prepared_folder(ancestry, root) else GONE
    weights = Ancestor(
        "weights",
        ancestry.weights,
        _weights(version, ancestry),
        (
            Ancestor("prepared", ancestry.data.prepared, prepared, (data,)),
            Ancestor("test split", ancestry.data.test_split),
            code,
            Ancestor("source of components", ancestry.code.components),
            Ancestor("lock", ancestry.code.lock),
            Ancestor("params", f"{ancestry.params_sha256}, seed {ancestry.seed}"),
            *(_source(key, source, root) for key, source in ancestry.sources.items()),
            machine,
            run,
        ),
    )
    pinned = "" if ancestry.data.pinned != NONE else f"; {gate.NOT_PINNED}"
    return Ancestor("version", f"{version.name} {version.version}{pinned}", "", (*_promotions(version), weights))


def _source(key: str, source: Source, root: Path) -> Ancestor:
    """Return the file, folder or version that a parameter named."""
    try:
        where = HERE if sources.identified(key, source.exact, root).sha256 == source.sha256 else CHANGED
    except PedigreeError:
        where = GONE
    return Ancestor(key, f"{source.exact} {source.sha256}", where)


def _promotions(version: Version) -> list[Ancestor]:
    """Return how a version became the champion, or was replaced by a rollback, the earliest first."""
    steps = promote.history(mlflow_versions.promotions(version.name), version.version)
    return [
        Ancestor(
            what,
            ("" if step["version"] == version.version else f"to version {step['version']}, ")
            + f"{step['when']} by {step['who']}: {step['why']}",
        )
        for what, step in steps
    ]


def _weights(version: Version, ancestry: Lineage) -> str:
    try:
        with tempfile.TemporaryDirectory() as scratch:
            saved = mlflow_versions.files_of(version, Path(scratch))
            return HERE if files.sha256(saved.model / model_files.WEIGHTS) == ancestry.weights else DAMAGED
    except DamagedError:
        return DAMAGED
    except (PedigreeError, OSError):
        return GONE


def prepared_folder(ancestry: Lineage, root: Path) -> Path | None:
    """Return a folder below build/ whose manifest is that of the data on which a version was trained, if any."""
    for manifest in root.glob(f"{BUILD}/**/prepared/manifest.json"):
        try:
            found = Manifest.model_validate_json(manifest.read_bytes())
        except (ValidationError, OSError):
            continue
        if lineage.of_prepared(found) == ancestry.data.prepared:
            return manifest.parent
    return None


def _data(ancestry: Lineage, root: Path) -> str:
    if ancestry.data.pinned == NONE:
        return "not pinned"
    if not (root / ".dvc").is_dir():
        return "unknown, as this folder is not a DVC project"
    below = old_versions.below(ancestry)
    try:
        if dvc_cache.holds(root, ancestry.data.pinned, below):
            return HERE
        return REMOTE if dvc_cache.remote_holds(root, ancestry.data.pinned, below) else GONE
    except PedigreeError as error:
        return f"not here; {error}"


def trained_on(data: str) -> list[tuple[Version, Lineage]]:
    """Return all versions trained on given data, where `data` is a prefix of one of the data's hashes.

    Raises:
        PedigreeError: there is none.
    """
    descendants = []
    for version in mlflow_versions.versions():
        try:
            ancestry = lineage_of(version)
        except PedigreeError:  # registered by hand or by older code
            continue
        hashes = (ancestry.data.pinned, ancestry.data.raw, ancestry.data.prepared)
        if any(each.startswith(data) for each in hashes):
            descendants.append((version, ancestry))
    if not descendants:
        raise PedigreeError(
            f"no registered version was trained on data {data}: find hashes with `pedigree trace NAME`"
        )
    return descendants
