"""A trained network as files that cannot run code: weights.safetensors, and JSON to rebuild the network."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError

from components.contracts import Manifest, Predict, Task
from components.errors import PedigreeError
from components.params import TaskParams
from components.runtime import files

if TYPE_CHECKING:  # importing torch takes seconds, and reading the JSON files does not need it
    from torch import nn

WEIGHTS, MODEL, RUN, HISTORY = "weights.safetensors", "model.json", "run.json", "history.csv"


class Saved(BaseModel):
    """model.json: the task, parameters and data of the weights beside it."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(default="", description="The model's name; empty in old versions")
    task: str
    params: dict[str, JsonValue]
    manifest: Manifest
    weights_sha256: str

    @property
    def seed(self) -> int:
        """The training's seed."""
        train = self.params["train"]
        assert isinstance(train, dict)
        return int(str(train["seed"]))


def save_weights(file: Path, model: nn.Module) -> None:
    """Write the weights of a model on any device atomically."""
    from safetensors.torch import save_model

    # safetensors rejects weights that share a piece of memory, as cuDNN's are in a recurrent layer; copies do not.
    copy = deepcopy(model).cpu()
    with files.new_beside(file) as new:
        with written(new):
            save_model(copy, str(new))
        files.publish(new, file)


@contextmanager
def written(file: Path) -> Iterator[None]:
    """Correct safetensors' behaviour when it writes `file`: raise OSError, and make the file readable by the team.

    Raises:
        OSError: the file could not be written.
    """
    try:
        yield
    except SafetensorError as error:
        if match := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(match[1]), os.strerror(int(match[1])), str(file)) from error
        raise
    file.chmod(0o644)  # safetensors makes its files readable by the user only


def load_saved(folder: Path) -> Saved:
    """Read model.json, and verify all files of the folder against its seal.

    Raises:
        PedigreeError: a file is missing or has changed.
    """
    files.check_seal(folder, "train")
    try:
        return Saved.model_validate_json((folder / MODEL).read_bytes())
    except ValidationError as error:
        raise PedigreeError(
            f"{folder / MODEL} was written by other code ({error.error_count()} problems): train again"
        ) from None


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load the folder's weights into the model.

    Raises:
        PedigreeError: the weights do not fit the network.
    """
    from safetensors.torch import load_model

    try:
        load_model(model, folder / WEIGHTS)
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise PedigreeError(
            f"{folder / WEIGHTS} does not fit the network of {MODEL} ({reason}): train again"
        ) from None


def write_history(folder: Path, rows: list[dict[str, float]]) -> None:
    """Write one row per validation; the first row's keys are the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(folder / HISTORY, text.getvalue())


def read_history(folder: Path) -> list[dict[str, float]]:
    """Read the rows that `write_history` wrote."""
    with (folder / HISTORY).open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def read_run(folder: Path) -> str:
    """Return the id of the MLflow run that wrote this folder."""
    return _run(folder)["run_id"]


def read_key(folder: Path) -> str:
    """Return the training key: trainings with equal keys produce the same folder."""
    return _run(folder)["key"]


def _run(folder: Path) -> dict[str, str]:
    try:
        run = json.loads((folder / RUN).read_text())
        return {name: str(run[name]) for name in ("run_id", "key")}
    except (OSError, ValueError, KeyError, TypeError):
        raise PedigreeError(f"{folder / RUN} is missing or damaged: run the train stage again") from None


SOURCES = "sources"
"""Folder beside the weights, with a subfolder for each parameter whose source the model needs for inference."""


def load_predict(task: Task[Any, Any], folder: Path) -> Predict:
    """Return the function that answers requests with the model in a folder."""
    described, model = load_saved(folder), rebuild(task, folder)
    params = task.params.model_validate(described.params)
    return task.load_predict(model, described.manifest, params)


def _sources(folder: Path) -> dict[str, Path]:
    """Return what a model's folder has of each source."""
    return {each.name: next(each.iterdir()) for each in folder.glob(f"{SOURCES}/*")}


def rebuild(task: Task[Any, Any], folder: Path, present: TaskParams | None = None) -> nn.Module:
    """Return the network of a model's folder with its weights, on the CPU and in evaluation mode.

    Args:
        task: The model's task.
        folder: The model's folder.
        present: Parameters of the present code. Their evaluation and gate replace those of an older version, which
            may have other keys and do not concern its network.

    Raises:
        PedigreeError: a file is missing or damaged, or other code wrote the folder.
    """
    described = load_saved(folder)
    values = dict(described.params)
    if present:
        values |= present.model_dump(by_alias=True, mode="json", include={"evaluate", "register_"})
    try:
        params = task.params.model_validate(values)
        model = task.build_model(params, described.manifest)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, each["loc"])) for each in error.errors()[:3])
        raise PedigreeError(
            f"{folder} was written by code with other parameters ({fields}): use the code of its commit, "
            "or train again"
        ) from None
    load_weights(model, folder)
    if task.attach:
        task.attach(model, params, _sources(folder))
    return model.eval()
