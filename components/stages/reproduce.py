"""Trains a registered version once more, from its lineage's commit, data and parameters: is it the same one?"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components import files, tasks
from components.adapters import git, mlflow_store, mlflow_versions
from components.adapters.mlflow_versions import Kept, Version
from components.errors import PedigreeError
from components.params import FILE, flat
from components.stages import data, evaluate, job, registry
from components.trust import lineage
from components.trust.lineage import NONE, Change, Lineage

STAGES = ("prepare", "train", "evaluate")

log = logging.getLogger("pedigree.reproduce")


@dataclass(frozen=True)
class Reproduction:
    """A second training of a version."""

    version: Version
    identical: bool
    """The weights are bitwise the same."""
    changes: Sequence[Change]
    """In what the second training differed from the first."""
    code: str
    """Which code it ran."""
    elsewhere: Sequence[str]
    """Files of components that are not the same in the checkout, when that was not the code."""
    score: Change
    """The task's score on the test split, as it was and as it is."""
    folder: Path
    """With the second training's prepared/, model/ and evaluation/."""


def reproduce(address: str, root: Path, here: bool) -> Reproduction:
    """Train a version again below build/reproduced/, with an MLflow store of its own, so that no other is changed.

    Args:
        address: Of the version.
        root: The project's folder.
        here: Use the code of this checkout as it is now, instead of a worktree of the version's commit.

    Raises:
        PedigreeError: the version, its lineage, its code or its data cannot be had, or a stage failed.
    """
    version = mlflow_versions.find(address)
    made = registry.lineage_of(version)
    out = root / "build" / "reproduced" / f"{version.name}-{version.version}"
    with files.replacing(out) as new, files.scratch(out) as place:
        kept = mlflow_versions.files_of(version, place / "version")
        before = evaluate.read_metrics(kept.metrics)
        with _source(version, made, kept, root, here) as (source, code):
            data.bring_raw(root, tasks.load(made.task), made.data, place / "data" / made.task)
            # JSON is YAML, too.
            files.write_json(place / FILE, {"tasks": {made.task: made.params}})
            _link_named_files(made, root, place)
            for stage in STAGES:
                _run(made.task, stage, place, source)
        build = place / "build" / made.task
        again, after = lineage.read(build / "model"), evaluate.read_metrics(build / "evaluation" / evaluate.METRICS)
        for folder in ("prepared", "model", "evaluation"):
            (build / folder).rename(new / folder)
    same = lineage.of_source(root / "components") == made.code.components
    elsewhere = [] if here or same else git.changed(root, "components", made.code.commit)
    changes = lineage.changes(made, again)
    score = tasks.load(made.task).score
    scores = Change(score, *(f"{each[score]:.6g}" if score in each else NONE for each in (before, after)))
    return Reproduction(version, again.weights == made.weights, changes, code, elsewhere, scores, out)


@contextmanager
def _source(version: Version, made: Lineage, kept: Kept, root: Path, here: bool) -> Iterator[tuple[Path, str]]:
    """Give the folder of the code that is to run, and what it is."""
    if here or (made.code.commit == NONE and lineage.of_source(root / "components") == made.code.components):
        yield root, "the code of this checkout"
        return
    if not git.has(root, made.code.commit):
        raise PedigreeError(
            f"the commit {made.code.commit} that made {version.name} version {version.version} is not in this "
            "repository: fetch it with git, or train with the code that is here by --here"
        )
    diff = kept.model / lineage.DIFF
    changes = diff.read_bytes() if diff.is_file() else b""
    named = f"commit {made.code.commit[:12]}{' with the changes that were in no commit' if changes else ''}"
    with git.worktree(root, made.code.commit, changes, kept.model.parent / "code") as folder:
        yield folder, named


def _link_named_files(made: Lineage, root: Path, place: Path) -> None:
    """Let files that parameters name by their way from the project, such as a checkpoint, be found from `place`."""
    for _, file in job.named_files(flat(made.params), root):
        named = place / file.relative_to(root) if file.is_relative_to(root) else file
        if ".." in named.parts or named.exists():
            continue
        named.parent.mkdir(parents=True, exist_ok=True)
        named.symlink_to(file)


def _run(task: str, stage: str, place: Path, source: Path) -> None:
    log.info("%s %s, as it was …", task, stage)
    environment = os.environ | {
        "PYTHONPATH": str(source),
        "MLFLOW_TRACKING_URI": mlflow_store.store_beside(place),
    }
    command = [sys.executable, "-m", "components", task, stage]
    done = subprocess.run(command, cwd=place, env=environment, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise PedigreeError(f"the {stage} stage of {task} did not go through again: its own words stand above")
