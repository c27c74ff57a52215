"""What is not the same in two registered versions: data, code, parameters, scores, and the samples they dispute."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue, ValidationError

from components import tasks
from components.adapters import git, mlflow_versions
from components.adapters.mlflow_versions import Version
from components.contracts import Manifest, Outcomes
from components.errors import PedigreeError
from components.params import EvaluateParams, flat
from components.stages import evaluate, registry
from components.training import saved
from components.trust import bootstrap, lineage
from components.trust.bootstrap import Difference
from components.trust.lineage import NONE, Change, Lineage


@dataclass(frozen=True)
class Dispute:
    """A test sample for which the two versions have other outcomes."""

    sample: str
    label: str
    """Its true class, where samples have one."""
    old: float
    new: float


@dataclass(frozen=True)
class Comparison:
    """The second version against the first."""

    old: Version
    new: Version
    data: Sequence[Change]
    code: Sequence[Change]
    files: Sequence[str]
    """Of components, that differ between the two commits, where both are here."""
    params: Sequence[Change]
    metrics: Sequence[Change]
    score: str
    difference: Difference | None
    """Of the mean outcome, which `Task.scale` makes the score of; by the paired bootstrap."""
    why_not: str
    """Where there is no difference to be had: the reason."""
    disputes: Sequence[Dispute]
    """The widest apart first."""


@dataclass(frozen=True)
class _Side:
    made: Lineage
    manifest: Manifest
    metrics: Mapping[str, float]
    outcomes: Outcomes


def compare(old: str, new: str, root: Path) -> Comparison:
    """Compare the versions at two addresses.

    Raises:
        PedigreeError: one of them, its lineage or its files cannot be had, or they are of two tasks.
    """
    versions = mlflow_versions.find(old), mlflow_versions.find(new)
    first, second = (_side(version) for version in versions)
    if first.made.task != second.made.task:
        raise PedigreeError(
            f"{old} is of {first.made.task} and {new} of {second.made.task}: compare two versions of one task"
        )
    difference, why_not = _difference(first, second)
    return Comparison(
        *versions,
        data=[*_data(first, second)],
        code=[
            change for change in lineage.changes(first.made, second.made) if change.what not in ("data", "params")
        ],
        files=_files(first.made, second.made, root),
        params=_changes(flat(first.made.params), flat(second.made.params)),
        metrics=_changes(first.metrics, second.metrics),
        score=tasks.load(first.made.task).score,
        difference=difference,
        why_not=why_not,
        disputes=[] if why_not else _disputes(first.outcomes, second.outcomes),
    )


def _side(version: Version) -> _Side:
    made = registry.lineage_of(version)
    with tempfile.TemporaryDirectory() as scratch:
        kept = mlflow_versions.files_of(version, Path(scratch))
        manifest = saved.load_saved(kept.model).manifest
        return _Side(made, manifest, evaluate.read_metrics(kept.metrics), evaluate.read_outcomes(kept.outcomes))


def _data(first: _Side, second: _Side) -> list[Change]:
    hashes = [
        {"pinned": side.made.data.pinned, "raw": side.made.data.raw, "prepared": side.made.data.prepared}
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


def _difference(first: _Side, second: _Side) -> tuple[Difference | None, str]:
    if first.made.data.test_split != second.made.data.test_split:
        return None, "they were tested on different splits"
    if list(first.outcomes.names) != list(second.outcomes.names):
        return None, "their test samples have other names"
    try:
        draws = EvaluateParams.model_validate(second.made.params.get("evaluate"))
    except ValidationError:
        return None, "the second one's parameters are those of other code"
    return bootstrap.difference(first.outcomes, second.outcomes, draws), ""


def _disputes(old: Outcomes, new: Outcomes) -> list[Dispute]:
    before, after = old.sums / old.counts, new.sums / new.counts
    places = [
        int(place) for place in np.argsort(-np.abs(after - before), kind="stable") if before[place] != after[place]
    ]
    labels = new.classes or [""] * len(new.names)
    return [Dispute(new.names[i], labels[i], float(before[i]), float(after[i])) for i in places]
