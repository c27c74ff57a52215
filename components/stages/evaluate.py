"""A trained network on the untouched test split, once -> metrics.json, plots and examples."""

import csv
import importlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from components import figures, files
from components.adapters import mlflow_runs, mlflow_store
from components.background import in_thread
from components.contracts import Batch, Evaluated, Outcomes, Prepared, Task, Trained
from components.errors import PedigreeError
from components.params import TaskParams
from components.stages import prepare, train, work
from components.training import inference, saved
from components.trust import bootstrap

METRICS, OUTCOMES = "metrics.json", "outcomes.csv"


def begin() -> None:
    """Begin to import what metrics and pictures need, which takes seconds, beside something else."""
    in_thread(_import, "evaluate-begin")


def _import() -> None:
    for name in ("torchmetrics.functional.classification", "matplotlib.figure"):
        importlib.import_module(name)


def evaluate(task: Task[Any], params: TaskParams, prepared: Prepared, trained: Trained, out: Path) -> Evaluated:
    """Evaluate into `out`, which is replaced only when all went well."""
    files.check_seal(prepared.folder, "prepare")
    with files.replacing(out) as new, files.scratch(out) as scratch:
        predicted = predictions(task, params, trained.folder, prepared, scratch, trained.run_id)
        for folder in ("plots", "examples"):
            (new / folder).mkdir()
        model = saved.rebuild(task, trained.folder)
        metrics = task.evaluate(model, predicted, prepared, new, params)
        outcomes = task.outcomes(predicted, prepared)
        metrics |= _interval(task, outcomes, params)
        _write_outcomes(new / "examples" / OUTCOMES, outcomes)
        shutil.copyfile(trained.folder / saved.HISTORY, new / saved.HISTORY)
        curves = figures.learning_curves(saved.read_history(trained.folder))
        figures.save(curves, new / "plots" / "learning_curves.png", prepared.manifest.note)
        files.write_json(new / METRICS, metrics)
        files.seal(new)
        mlflow_runs.log_evaluation(trained.run_id, metrics, new, prepared.manifest, prepared.folder)
    return Evaluated(out, metrics)


def predictions(
    task: Task[Any], params: TaskParams, model: Path, prepared: Prepared, scratch: Path, name: str
) -> Batch:
    """Return what a saved network says of the whole test split, computed on evaluation's workers."""
    file = scratch / "predictions.safetensors"
    predict = partial(inference.predict_to_file, task, model, prepared, params.evaluate.batch_size, file)
    work.run(predict, params.evaluate.workers, scratch, lambda event: None, name)
    return load_file(file)


def _interval(task: Task[Any], outcomes: Outcomes, params: TaskParams) -> dict[str, float]:
    """Return the ends of the score's 95 % interval."""
    low, high = sorted(map(task.scale, bootstrap.interval(outcomes, params.evaluate)))
    return {f"{task.score}_low": low, f"{task.score}_high": high}


def _write_outcomes(path: Path, outcomes: Outcomes) -> None:
    """Write a line for each test sample."""
    nothing = [""] * len(outcomes.names)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["sample", "class", "source", "sum", "count"])
        columns = (
            outcomes.names,
            outcomes.classes or nothing,
            outcomes.sources or nothing,
            map(repr, outcomes.sums.tolist()),
            outcomes.counts.tolist(),
        )
        table.writerows(zip(*columns, strict=True))


def read_outcomes(path: Path) -> Outcomes:
    """Read back outcomes.csv, or that of an evaluation's folder.

    Raises:
        PedigreeError: it is missing or damaged.
    """
    path = path / "examples" / OUTCOMES if path.is_dir() else path
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise ValueError("no lines")  # noqa: TRY301 (the sentence is below)
        return Outcomes(
            [row["sample"] for row in rows],
            np.array([float(row["sum"]) for row in rows]),
            np.array([int(row["count"]) for row in rows]),
            [row["class"] for row in rows] if any(row["class"] for row in rows) else (),
            [row["source"] for row in rows] if any(row["source"] for row in rows) else (),
        )
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise PedigreeError(f"{path} is missing or damaged: run the evaluate stage again") from None


def load(folder: Path) -> Evaluated:
    """Take up what `evaluate` wrote."""
    if not folder.is_dir():
        raise PedigreeError(f"{folder} holds no evaluation: run the evaluate stage first")
    return Evaluated(folder, read_metrics(folder / METRICS))


def read_metrics(path: Path) -> dict[str, float]:
    """Read back metrics.json.

    Raises:
        PedigreeError: it is missing or damaged.
    """
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError):
        metrics = None
    if not isinstance(metrics, dict):
        raise PedigreeError(f"{path} is missing or damaged: run the evaluate stage again")
    return metrics


def run(task: Task[Any], params: TaskParams, root: Path) -> None:
    """Run the stage by itself, as dvc.yaml does: from build/<task>/model/ to build/<task>/evaluation/."""
    build = root / "build" / task.name
    with mlflow_store.answering():
        mlflow_store.connect(root)
        evaluate(task, params, prepare.load(build / "prepared"), train.load(build / "model"), build / "evaluation")
