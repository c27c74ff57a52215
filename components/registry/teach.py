"""Makes a version that knows new classes, from a trained version and a folder of a few images of each."""

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import models, tasks
from components.adapters import dvc_cache, dvc_data, mlflow_versions
from components.adapters.mlflow_versions import Version
from components.contracts import Registered, Task
from components.errors import PedigreeError
from components.models import DATA, Model
from components.params import INIT, VERSION, InitParams, TaskParams
from components.registry import trace
from components.runtime import files
from components.stages import evaluate, prepare, register, summary, train
from components.training import model_files
from components.trust.lineage import Lineage

log = logging.getLogger("pedigree.teach")

TAUGHT = "taught"
"""Folder below a model's folder in build/ with the stages' output."""


def teach(address: str, folder: Path, root: Path) -> Registered:
    """Register a version that knows the classes of a folder, without training; it has to pass the gate.

    It is made by the four stages, from the trained version's weights and the folder, which is pinned. In place of a
    version that was taught itself, the trained one is taken: both have the same network.

    Args:
        address: Address of the version.
        folder: Raw files in the layout that the task's `teach` reads; copied to data/ unless they are there.
        root: The project's folder.

    Raises:
        PedigreeError: there is no such version, its task cannot be taught, or the folder cannot be read.
    """
    parent, ancestry = _trained(address)
    task = tasks.load(ancestry.task)
    if task.teach is None:
        able = [name for name in tasks.names() if tasks.load(name).teach]
        raise PedigreeError(
            f"{parent.name} cannot be taught, as its task is {task.name}: teach a model of {' or '.join(able)}"
        )
    if not folder.is_dir() or not files.filled(folder):
        raise PedigreeError(f"{folder} is not a folder with files: name the folder of the classes to learn")
    build = root / models.BUILD / parent.name / TAUGHT
    with files.scratch(build) as scratch:
        params = _params(task, parent, ancestry, folder, scratch)
    data = _pinned(root, folder)
    model = Model(parent.name, task, params, data, root)
    prepared = prepare.prepare(model, model.raw, build / "prepared")
    trained = train.train(model, prepared, build / "model")
    evaluated = evaluate.evaluate(model, prepared, trained, build / "evaluation")
    registered = register.register(model, prepared, trained, evaluated, build / "registered.json")
    summary.show([summary.outcome(model, prepared, trained, evaluated, registered)])
    return registered


def _trained(address: str) -> tuple[Version, Lineage]:
    """Return the version at an address, or that from whose weights it was made without an update."""
    version = mlflow_versions.find(address)
    ancestry = trace.lineage_of(version)
    source = ancestry.sources.get(INIT)
    if _epochs(ancestry) or source is None or not source.exact.startswith(VERSION):
        return version, ancestry
    return _trained(source.exact)


def _epochs(ancestry: Lineage) -> Any:
    train = ancestry.params["train"]
    return train["epochs"] if isinstance(train, Mapping) else None


def _params(task: Task[Any, Any], parent: Version, ancestry: Lineage, folder: Path, scratch: Path) -> TaskParams:
    """Return the parameters of the new version: the trained version's, as the task's `teach` changes them."""
    saved = mlflow_versions.files_of(parent, scratch)
    described = model_files.load_saved(saved.model)
    params: TaskParams = task.params.model_validate(ancestry.params)
    assert task.teach is not None
    params = task.teach(params, described.manifest, evaluate.read_metrics(saved.metrics), folder)
    init = InitParams.model_validate(
        {"from": f"{VERSION}{parent.name}/{parent.version}", "freeze": 0, "layer_decay": 1}
    )
    changes = {"epochs": 0, "workers": 0, "batch_size": 1, "accumulate": 1, "init": init}
    alone = params.evaluate.model_copy(update={"workers": 0})
    return params.model_copy(update={"train": params.train.model_copy(update=changes), "evaluate": alone})


def _pinned(root: Path, folder: Path) -> str:
    """Return the name of a folder's data set, which has its files and is pinned.

    An earlier version of the data set is replaced if DVC's cache has it.

    Raises:
        PedigreeError: data/ has other files under that name, which a model uses or which would be lost.
    """
    inside = folder.resolve().parent == (root / DATA).resolve()
    name = folder.name if inside else re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    models.expect_name(name, str(folder), "data set")
    target = root / DATA / name
    dvc_data.expect_readable(folder.resolve())
    with dvc_data.alone(root, f"pedigree teach, the pinning of {name}"):
        there = files.filled(target)
        if not inside and not (
            there and dvc_data.hash_of(target, root) == dvc_data.hash_of(folder.resolve(), root)
        ):
            if there:
                _expect_replaceable(root, name, folder)
            with files.replacing(target) as new:
                shutil.copytree(folder, new, dirs_exist_ok=True)
        if dvc_data.pinned(root, name) != dvc_data.hash_of(target, root):
            dvc_data.add(root, name)
            log.info(f"{dvc_data.PIN} pins {DATA}/{name}: commit it to git")
    return name


def _expect_replaceable(root: Path, name: str, folder: Path) -> None:
    present = dvc_data.hash_of(root / DATA / name, root)
    used = any(each.data == name for each in models.listed(models.read(root)))
    if used or dvc_data.pinned(root, name) != present or not dvc_cache.holds(root, present):
        why = "is the data set of a model" if used else "would be lost, as DVC's cache does not have it"
        raise PedigreeError(f"{DATA}/{name} has other files than {folder}, and {why}: rename {folder}")
