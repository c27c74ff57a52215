"""A trained network as files that cannot run code: weights.safetensors and all that rebuilds it as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from safetensors import SafetensorError

from components import files
from components.contracts import Manifest, Task
from components.errors import PedigreeError

if TYPE_CHECKING:  # importing torch takes seconds, and who only reads what was saved needs none
    from torch import nn

WEIGHTS, MODEL, RUN, HISTORY = "weights.safetensors", "model.json", "run.json", "history.csv"


class Saved(BaseModel):
    """model.json: which task, parameters and data made the weights beside it."""

    model_config = ConfigDict(frozen=True)

    task: str
    params: dict[str, JsonValue]
    manifest: Manifest
    weights_sha256: str

    @property
    def seed(self) -> int:
        """Of the training."""
        train = self.params["train"]
        assert isinstance(train, dict)
        return int(str(train["seed"]))


def save_weights(file: Path, model: nn.Module) -> None:
    """Write the weights whole or not at all."""
    from safetensors.torch import save_model

    with files.new_beside(file) as new:
        with written(new):
            save_model(model, str(new))
        files.publish(new, file)


@contextmanager
def written(file: Path) -> Iterator[None]:
    """Let safetensors write a file as others are written: a full disk is an OSError, and a team can read it.

    Raises:
        OSError: the file could not be written.
    """
    try:
        yield
    except SafetensorError as error:
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(file)) from error
        raise
    file.chmod(0o644)  # safetensors keeps its files to the user alone


def load_saved(folder: Path) -> Saved:
    """Read model.json, and check it and all that is beside it against the folder's seal.

    Raises:
        PedigreeError: a file is missing or is not what was written.
    """
    files.check_seal(folder, "train")
    try:
        return Saved.model_validate_json((folder / MODEL).read_bytes())
    except ValidationError as error:
        raise PedigreeError(
            f"{folder / MODEL} is of other code ({error.error_count()} problems): train again"
        ) from None


def load_weights(model: nn.Module, folder: Path) -> None:
    """Fill the model with the folder's weights.

    Raises:
        PedigreeError: they are not this network's.
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
    """Write one row an epoch; the first row's keys are the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(folder / HISTORY, text.getvalue())


def read_history(folder: Path) -> list[dict[str, float]]:
    """Read back what `write_history` wrote."""
    with (folder / HISTORY).open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def read_run(folder: Path) -> str:
    """Return the id of the MLflow run that made this folder."""
    return _run(folder)["run_id"]


def read_key(folder: Path) -> str:
    """Return what trainings share that make the same as this folder holds."""
    return _run(folder)["key"]


def _run(folder: Path) -> dict[str, str]:
    try:
        run = json.loads((folder / RUN).read_text())
        return {name: str(run[name]) for name in ("run_id", "key")}
    except (OSError, ValueError, KeyError, TypeError):
        raise PedigreeError(f"{folder / RUN} is missing or damaged: run the train stage again") from None


def rebuild(task: Task[Any], folder: Path) -> nn.Module:
    """Return the network of a model's folder with its weights, on the CPU, ready to answer."""
    described = load_saved(folder)
    try:
        model = task.build_model(task.params.model_validate(described.params), described.manifest)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, each["loc"])) for each in error.errors()[:3])
        raise PedigreeError(
            f"{folder} was made by code that knew other parameters ({fields}): use the code of its commit, "
            "or train again"
        ) from None
    load_weights(model, folder)
    return model.eval()
