"""Recomputes every hash that a registered version's lineage claims."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from components.adapters import dvc_cache, dvc_data, git, mlflow_pages, mlflow_runs, mlflow_versions
from components.adapters.dvc_data import DATA
from components.adapters.mlflow_versions import Version, VersionFiles
from components.errors import DamagedError, PedigreeError
from components.jobs import sources
from components.registry import trace
from components.runtime import files
from components.stages import evaluate
from components.training import model_files
from components.trust import lineage, old_versions
from components.trust.lineage import NONE, Lineage

State = Literal["holds", "gone", "contradicted", "not recorded"]


@dataclass(frozen=True)
class Check:
    """One entry of a lineage, and whether it is still true."""

    entry: str
    """As `pedigree trace` names it."""
    state: State
    """`holds`: recomputed and equal. `gone`: nothing here to recompute it from. `contradicted`: what is here has
    another hash. `not recorded`: the lineage claims nothing."""
    found: str
    """What it was recomputed from, or what contradicts it."""


def verify(version: Version, root: Path) -> list[Check]:
    """Check all entries of a version's lineage; a version that was registered without one has none to check."""
    if lineage.TAG not in version.tags:
        return list(_without_lineage(version))
    try:
        ancestry = trace.lineage_of(version)
    except DamagedError as error:
        return [Check("records", "contradicted", str(error))]
    with tempfile.TemporaryDirectory(prefix="pedigree-") as scratch:
        try:
            saved = mlflow_versions.files_of(version, Path(scratch) / "version")
        except DamagedError as error:
            own = [Check("files", "contradicted", str(error))]
        except PedigreeError as error:
            own = [Check("files", "gone", str(error))]
        else:
            own = [Check("files", "holds", "the files in MLflow's store"), *_own(saved, ancestry)]
            own += _score(version, saved)
            own += _code(saved, ancestry, root, Path(scratch))
    return [
        Check("records", "holds", "the tags in MLflow's database"),
        *own,
        _parameters(ancestry),
        _data(ancestry, root),
        _prepared(ancestry, root),
        *(_source(key, source, root) for key, source in ancestry.sources.items()),
        _run(ancestry),
    ]


def _without_lineage(version: Version) -> Iterator[Check]:
    """Check whether a version was registered by hand, or has lost its records."""
    try:
        mlflow_versions.check(version)
    except DamagedError as error:
        yield Check("records", "contradicted", str(error))
    except PedigreeError:  # its files are gone, and it claims nothing
        return


def _equal(entry: str, claimed: str, found: str, where: str) -> Check:
    if claimed == found:
        return Check(entry, "holds", where)
    return Check(entry, "contradicted", f"{where}: {found[:12]} instead of {claimed[:12]}")


def _own(saved: VersionFiles, ancestry: Lineage) -> Iterator[Check]:
    """Check what the version's own files say."""
    yield _equal("weights", ancestry.weights, files.sha256(saved.model / model_files.WEIGHTS), "its weights")
    try:
        described = model_files.load_saved(saved.model)
    except (PedigreeError, ValidationError) as error:
        yield Check("model.json", "contradicted", str(error))
        return
    manifest = described.manifest
    yield _equal("params", ancestry.params_sha256, lineage.digest(described.params), "model.json")
    yield _equal("prepared", ancestry.data.prepared, lineage.of_prepared(manifest), "model.json")
    yield _equal("data", ancestry.data.raw, manifest.raw, "model.json")
    yield _equal("test split", ancestry.data.test_split, manifest.splits["test"].sha256, "model.json")


def _score(version: Version, saved: VersionFiles) -> Iterator[Check]:
    metrics = evaluate.read_metrics(saved.metrics)
    name = evaluate.score_name(metrics)
    claimed = version.tags.get(mlflow_versions.SCORE)
    if claimed is None:
        yield Check("score", "not recorded", "")
    elif claimed == mlflow_pages.score_text(name, metrics[name]):
        yield Check("score", "holds", "metrics.json")
    else:
        yield Check("score", "contradicted", f"metrics.json: {mlflow_pages.score_text(name, metrics[name])}")


def _code(saved: VersionFiles, ancestry: Lineage, root: Path, scratch: Path) -> Iterator[Check]:
    """Check the source that the version carries, and its commit with its uncommitted changes."""
    for folder in saved.outcomes.parent.parent.glob("code/components"):
        yield _equal("source of components", ancestry.code.components, lineage.of_source(folder), "its own copy")
    commit = ancestry.code.commit
    if commit == NONE:
        yield Check("code", "not recorded", "it was trained outside git")
        return
    if not git.has(root, commit):
        yield Check("code", "gone", f"commit {commit[:12]} is not in this repository")
        return
    diff = saved.model / lineage.DIFF
    changes = diff.read_bytes() if diff.is_file() else b""
    with git.worktree(root, commit, changes, scratch / "code") as folder:
        where = f"commit {commit[:12]}{' and its uncommitted changes' if changes else ''}"
        yield _equal("code", ancestry.code.components, lineage.of_source(folder / "components"), where)
        lock = folder / "requirements.lock"
        yield _equal("lock", ancestry.code.lock, files.sha256(lock) if lock.is_file() else NONE, where)


def _parameters(ancestry: Lineage) -> Check:
    return _equal("params", ancestry.params_sha256, lineage.digest(ancestry.params), "the lineage")


def _data(ancestry: Lineage, root: Path) -> Check:
    """Recompute the hash of the raw data from DVC's cache, or from data/ if they are there."""
    raw, name = ancestry.data.raw, old_versions.data_folder(ancestry)
    if raw == NONE:
        return Check("data", "not recorded", "they were prepared outside a DVC project")
    pinned, below = ancestry.data.pinned, old_versions.below(ancestry)
    in_dvc = pinned != NONE and (root / dvc_data.FOLDER).is_dir()
    if in_dvc and dvc_cache.holds(root, pinned, below):
        if damaged := dvc_cache.damaged(root, pinned, below):
            return Check(
                "data", "contradicted", f"DVC's cache has {len(damaged)} damaged files, such as {damaged[0]}"
            )
        return Check("data", "holds", "DVC's cache")
    if dvc_data.has_version(root / DATA / name, raw):
        return Check("data", "holds", f"{DATA}/{name}")
    try:
        remote = in_dvc and dvc_cache.remote_holds(root, pinned, below)
    except PedigreeError as error:
        return Check("data", "gone", f"not here; {error}")
    return Check("data", "gone", "not here, but in DVC's remote: `dvc pull`" if remote else "not here")


def _prepared(ancestry: Lineage, root: Path) -> Check:
    folder = trace.prepared_folder(ancestry, root)
    if folder is None:
        return Check("prepared", "gone", "not here; the prepare stage writes it again")
    try:
        files.check_seal(folder, "prepare")
    except PedigreeError as error:
        return Check("prepared", "contradicted", str(error))
    return Check("prepared", "holds", str(folder.relative_to(root)))


def _source(key: str, source: lineage.Source, root: Path) -> Check:
    """Recompute the hash of a file, folder or version that a parameter named."""
    try:
        found = sources.identified(key, source.exact, root)
    except PedigreeError as error:
        return Check(key, "gone", str(error))
    if found.sha256 == source.sha256:
        return Check(key, "holds", source.exact)
    return Check(key, "gone", f"{source.exact} has changed since: {found.sha256[:12]}, not {source.sha256[:12]}")


def _run(ancestry: Lineage) -> Check:
    run = ancestry.runs.mlflow
    if mlflow_runs.has_run(run):
        return Check("run", "holds", f"MLflow {run}")
    return Check("run", "gone", f"MLflow has no run {run}")
