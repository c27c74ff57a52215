"""Trains a registered version again from its commit, data and parameters, and compares the weights."""

import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components import models
from components.adapters import git, mlflow_store, mlflow_versions
from components.adapters.mlflow_versions import Version, VersionFiles
from components.datasets import raw_files
from components.errors import PedigreeError
from components.jobs import gpus, sources
from components.params import FILE
from components.project import data
from components.registry import trace
from components.runtime import files
from components.stages import evaluate
from components.training.device import VISIBLE
from components.trust import lineage, old_versions
from components.trust.lineage import NONE, Change, Lineage

STAGES = ("prepare", "train", "evaluate")
Verdict = Literal["identical", "close", "different"]
CLOSE = 1e-3
"""Largest relative difference of two scores that are close."""

log = logging.getLogger("pedigree.reproduce")


@dataclass(frozen=True)
class Reproduction:
    """A second training of a version."""

    version: Version
    verdict: Verdict
    """Whether the weights are bitwise identical, or else as close as the hardware lets one expect."""
    changes: Sequence[Change]
    """How the second training differs from the first."""
    code: str
    """The code that it ran."""
    elsewhere: Sequence[str]
    """Files of components/ that differ in this checkout, if the version's own code ran."""
    score: Change
    """The score on the test split, then and now."""
    folder: Path
    """Contains prepared/, model/ and evaluation/ of the second training."""


def reproduce(address: str, root: Path, here: bool) -> Reproduction:
    """Train a version again below build/reproduced/, with an MLflow store of its own.

    Args:
        address: Address of the version.
        root: The project's folder.
        here: Use the present code of this checkout instead of a worktree of the version's commit.

    Raises:
        PedigreeError: the version, its lineage, code or data are missing, or a stage failed.
    """
    version = mlflow_versions.find(address)
    ancestry = trace.lineage_of(version)
    if here and old_versions.is_old(ancestry):
        raise PedigreeError(
            f"{version.name} version {version.version} has parameters of earlier code, which this checkout does "
            "not support: leave out --here to train with the version's own code"
        )
    out = root / models.BUILD / models.REPRODUCED / f"{version.name}-{version.version}"
    with files.replacing(out) as new, files.scratch(out) as workspace:
        saved = mlflow_versions.files_of(version, workspace / "version")
        before = evaluate.read_metrics(saved.metrics)
        with _source(version, ancestry, saved, root, here) as (source, code):
            data.bring_raw(root, ancestry, workspace / "data" / old_versions.data_folder(ancestry))
            params = _with_sources(ancestry, root, workspace)
            if here:
                params = old_versions.completed(params)
            # JSON is valid YAML.
            files.write_json(workspace / FILE, old_versions.params_file(ancestry, params))
            old_versions.link_checkpoint(ancestry, root, workspace)
            for stage in STAGES:
                with _gpus(root, f"the reproduction of {version.name}", params[stage]) as names:
                    _run(old_versions.section(ancestry), stage, workspace, source, names)
        build = workspace / "build" / old_versions.section(ancestry)
        again, after = lineage.read(build / "model"), evaluate.read_metrics(build / "evaluation" / evaluate.METRICS)
        # These differ only in where the sources were copied to.
        again = again.model_copy(update={"params": ancestry.params, "sources": ancestry.sources})
        for folder in ("prepared", "model", "evaluation"):
            (build / folder).rename(new / folder)
    same = lineage.of_source(root / "components") == ancestry.code.components
    elsewhere = [] if here or same else git.changed(root, "components", ancestry.code.commit)
    changes = lineage.changes(ancestry, again)
    score = evaluate.score_name(before)
    scores = Change(score, *(f"{each[score]:.6g}" if score in each else NONE for each in (before, after)))
    found = verdict(ancestry, again, before[score], after.get(score, math.nan))
    return Reproduction(version, found, changes, code, elsewhere, scores, out)


def verdict(old: Lineage, new: Lineage, before: float, after: float) -> Verdict:
    """Return how close a second training came to the first one, given the scores of both.

    A GPU, or other hardware, may give other last digits. Then the score decides, if nothing else has changed.
    """
    if new.weights == old.weights:
        return "identical"
    changed = {change.what for change in lineage.changes(old, new)}
    expected = changed == {"hardware"} or (not changed and not old.machine.repeats)
    return "close" if expected and math.isclose(before, after, rel_tol=CLOSE) else "different"


@contextmanager
def _source(
    version: Version, ancestry: Lineage, saved: VersionFiles, root: Path, here: bool
) -> Iterator[tuple[Path, str]]:
    """Yield the folder of the code to run, and its description."""
    commit = ancestry.code.commit
    if here or (commit == NONE and lineage.of_source(root / "components") == ancestry.code.components):
        yield root, "the code of this checkout"
        return
    if not git.has(root, commit):
        raise PedigreeError(
            f"the commit {commit} of {version.name} version {version.version} is not in this repository: fetch it "
            "with git, or train with the code of this checkout by --here"
        )
    diff = saved.model / lineage.DIFF
    changes = diff.read_bytes() if diff.is_file() else b""
    description = f"commit {commit[:12]}{' with its uncommitted changes' if changes else ''}"
    if missing := git.left_out(changes):
        description += f", which lack the content of {raw_files.listed(missing)}"
    with git.worktree(root, commit, changes, saved.model.parent / "code") as folder:
        yield folder, description


def _with_sources(ancestry: Lineage, root: Path, workspace: Path) -> dict[str, Any]:
    """Copy the sources of a version into `workspace`; return its parameters with these copies in their place.

    Those of evaluation, which do not change the weights, are left out.

    Raises:
        PedigreeError: a source is gone or has changed.
    """
    params: dict[str, Any] = deepcopy(dict(ancestry.params))
    needed = sources.of_training(ancestry.sources)
    local = sources.fetch(needed, root, workspace / sources.FOLDER, "restore what the version started from")
    for key in ancestry.sources:
        *sections, name = key.split(".")
        section = params
        for each in sections:
            section = section[each]
        section[name] = str(local[key].relative_to(workspace)) if key in local else ""
    return params


def _gpus(root: Path, doing: str, params: Mapping[str, Any]) -> AbstractContextManager[Sequence[str]]:
    """Hold GPUs of the checkout for the workers of a stage, if it has any: the workspace has locks of its own."""
    return gpus.some(root, params["workers"], doing) if "workers" in params else nullcontext(())


def _run(name: str, stage: str, workspace: Path, source: Path, names: Sequence[str]) -> None:
    log.info("reproducing %s %s …", name, stage)
    environment = os.environ | {
        "PYTHONPATH": str(source),
        "MLFLOW_TRACKING_URI": mlflow_store.store_beside(workspace),
        **({VISIBLE: ",".join(names)} if names else {}),
    }
    command = [sys.executable, "-m", "components", name, stage]
    process = subprocess.run(command, cwd=workspace, env=environment, stdin=subprocess.DEVNULL, check=False)
    if process.returncode:
        raise PedigreeError(f"the {stage} stage of {name} failed: see its output above")
