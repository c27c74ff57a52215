"""Lists the models of a project with their data and champions."""

import os
from dataclasses import dataclass
from pathlib import Path

from components import models
from components.adapters import dvc_data
from components.errors import PedigreeError
from components.models import Listed


@dataclass(frozen=True)
class Row:
    """A model's row in the list."""

    name: str
    task: str
    data: str
    """Name and state of its data set."""
    champion: str
    """Version and score, or empty if there is none."""


def rows(root: Path) -> list[Row]:
    """Return a row for each model, in the order of params.yaml.

    Raises:
        PedigreeError: params.yaml is invalid, or MLflow's store does not answer.
    """
    listed = models.listed(models.read(root))
    states = {name: _state(root, name) for name in {each.data: None for each in listed}}
    champions = _champions(root, listed)
    return [Row(each.name, each.task, f"{each.data}: {states[each.data]}", champions[each.name]) for each in listed]


def _state(root: Path, data: str) -> str:
    folder = root / models.DATA / data
    pin = dvc_data.pinned_version(root, data)
    if not folder.is_dir():
        return "missing" if pin else "missing and not pinned"
    try:
        found = dvc_data.version_of(folder, root, recorded=True)
    except PedigreeError as error:
        return str(error)
    how = "pinned" if found == pin else "changed since it was pinned" if pin else "not pinned"
    return f"{found.size}, {how}"


def _champions(root: Path, listed: list[Listed]) -> dict[str, str]:
    if not (root / "mlflow.db").exists() and "MLFLOW_TRACKING_URI" not in os.environ:
        return {each.name: "" for each in listed}  # nothing is registered: skip the slow import of MLflow
    from components.adapters import mlflow_store, mlflow_versions

    mlflow_store.connect(root)
    found = {each.name: mlflow_versions.version_at(each.name, mlflow_versions.CHAMPION) for each in listed}
    return {
        name: f"version {each.version}  {each.tags.get(mlflow_versions.SCORE, '')}".rstrip() if each else ""
        for name, each in found.items()
    }
