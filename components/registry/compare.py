"""Compares two registered versions: data, code, parameters, metrics, and the samples on which they disagree."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from components import tasks
from components.adapters import git, mlflow_versions
from components.adapters.mlflow_versions import Version
from components.contracts import Manifest, Outcomes, Score
from components.errors import PedigreeError
from components.params import flat
from components.registry import trace
from components.stages import evaluate
from components.training import model_files
from components.trust import intervals, lineage, old_versions
from components.trust.intervals import Estimate
from components.trust.lineage import NONE, Change, Lineage


@dataclass(frozen=True)
class Dispute:
    """A test sample on which the two versions have different outcomes."""

    sample: str
    label: str
    """Its true class, if samples have one."""
    old: float
    new: float


@dataclass(frozen=True)
class Comparison:
    """The comparison of a new version with an old one."""

    old: Version
    new: Version
    data: Sequence[Change]
    code: Sequence[Change]
    files: Sequence[str]
    """Files of components/ that differ between the two commits, if both are in the repository."""
    params: Sequence[Change]
    metrics: Sequence[Change]
    score: str
    difference: Estimate | None
    """Difference in the score on the same test samples."""
    why_not: str
    """Why there is no difference, if it cannot be computed."""
    disputes: Sequence[Dispute]
    """The largest differences first."""


@dataclass(frozen=True)
class Side:
    """What is known of a version and of its results on the test split."""

    lineage: Lineage
    manifest: Manifest
    metrics: Mapping[str, float]
    outcomes: Outcomes


def compare(old: str, new: str, root: Path) -> Comparison:
    """Compare the versions at two addresses.

    Raises:
        PedigreeError: a version, its lineage or its files are missing, or the versions have different tasks.
    """
    versions = mlflow_versions.find(old), mlflow_versions.find(new)
    first, second = (side_of(version) for version in versions)
    kinds = old_versions.task(first.lineage), old_versions.task(second.lineage)
    if kinds[0] != kinds[1]:
        raise PedigreeError(
            f"{old} has the task {kinds[0]} and {new} {kinds[1]}: compare two versions of the same task"
        )
    difference, why_not = _difference(first, second)
    return Comparison(
        *versions,
        data=[*_data(first, second)],
        code=[
            change
            for change in lineage.changes(first.lineage, second.lineage)
            if change.what not in ("data", "params")
        ],
        files=_files(first.lineage, second.lineage, root),
        params=_changes(flat(first.lineage.params), flat(second.lineage.params)),
        metrics=_changes(first.metrics, second.metrics),
        score=score_of(second).name,
        difference=difference,
        why_not=why_not,
        disputes=[] if why_not else _disputes(first.outcomes, second.outcomes, score_of(second)),
    )


def side_of(version: Version) -> Side:
    """Fetch and read a version's files; raises as `compare` does."""
    ancestry = trace.lineage_of(version)
    with tempfile.TemporaryDirectory() as scratch:
        saved = mlflow_versions.files_of(version, Path(scratch))
        manifest = model_files.load_saved(saved.model).manifest
        metrics, outcomes = evaluate.read_metrics(saved.metrics), evaluate.read_outcomes(saved.outcomes)
        return Side(ancestry, manifest, metrics, outcomes)


def _data(first: Side, second: Side) -> list[Change]:
    hashes = [
        {"pinned": side.lineage.data.pinned, "raw": side.lineage.data.raw, "prepared": side.lineage.data.prepared}
        for side in (first, second)
    ]
    counts = [
        {f"{name} samples": split.samples for name, split in side.manifest.splits.items()}
        | flat(_mapping(side.manifest.facts.get("counts")))
        for side in (first, second)
    ]
    return [*_changes(*hashes), *_changes(*counts)]


def _mapping(value: JsonValue) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    keys = [*old, *(key for key in new if key not in old)]
    pairs = ((key, old.get(key, NONE), new.get(key, NONE)) for key in keys)
    return [Change(key, _text(before), _text(after)) for key, before, after in pairs if before != after]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _files(old: Lineage, new: Lineage, root: Path) -> list[str]:
    if NONE in (old.code.commit, new.code.commit):
        return []
    return git.changed(root, "components", old.code.commit, new.code.commit)


def _difference(first: Side, second: Side) -> tuple[Estimate | None, str]:
    if first.lineage.data.test_split != second.lineage.data.test_split:
        return None, "they were tested on different splits"
    if list(first.outcomes.samples) != list(second.outcomes.samples):
        return None, "their test samples have different names"
    if first.outcomes.columns.keys() != second.outcomes.columns.keys():
        return None, "their outcomes were recorded by different code, or measured by different networks"
    return intervals.difference(first.outcomes, second.outcomes, score_of(second)), ""


def score_of(side: Side) -> Score:
    """Return the score of a version's task."""
    if old_versions.is_old(side.lineage):
        return evaluate.OLD_SCORE
    score: Score = tasks.load(old_versions.task(side.lineage)).score(side.manifest)
    return score


def _disputes(old: Outcomes, new: Outcomes, score: Score) -> list[Dispute]:
    """Return the samples with different scores, the largest differences first."""
    before, after = (intervals.sample_values(each, score) for each in (old, new))
    differ = np.flatnonzero((before != after) & ~(np.isnan(before) & np.isnan(after)))
    order = differ[np.argsort(-np.nan_to_num(np.abs(after - before)[differ], nan=np.inf), kind="stable")]
    labels = next(iter(new.groups.values()), ()) if new.sample is None else ()
    return [
        Dispute(new.samples[i], labels[i] if labels else "", float(before[i]), float(after[i]))
        for i in order.tolist()
    ]
