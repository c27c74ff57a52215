"""A trained network, evaluated once on the test split -> metrics.json, plots and examples."""

import csv
import importlib
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components import figures, scores, tasks
from components.adapters import mlflow_pages, mlflow_runs, mlflow_store
from components.contracts import Evaluated, Outcomes, Predict, Prepared, Score, Trained
from components.errors import PedigreeError
from components.jobs import gpus, launch, sources
from components.jobs.predict import predict
from components.models import Model
from components.runtime import files
from components.runtime.background import in_thread
from components.stages import prepare, train
from components.training import inference, model_files
from components.trust import intervals

METRICS, OUTCOMES = "metrics.json", "outcomes.csv"


def begin() -> None:
    """Start importing in the background what metrics and plots need, which takes seconds."""
    in_thread(_import, "evaluate-begin")


def _import() -> None:
    for name in ("torchmetrics.functional.classification", "matplotlib.figure"):
        importlib.import_module(name)


def evaluate(model: Model, prepared: Prepared, trained: Trained, out: Path) -> Evaluated:
    """Evaluate into `out`, which is replaced only on success."""
    task, params = model.task, model.params
    files.check_seal(prepared.folder, "prepare")
    identified = sources.of_evaluation(params, model.root)
    with files.replacing(out) as new, files.scratch(out) as scratch:
        local = sources.fetch(identified, model.root, scratch / sources.FOLDER)
        predicted = _predictions(model, prepared, trained, scratch)
        score = task.score(prepared.manifest)
        for folder in ("plots", "examples"):
            (new / folder).mkdir()
        network = model_files.rebuild(task, trained.folder)
        metrics = task.evaluate(network, predicted, prepared, new, params)
        if task.further_metrics and local:
            with sources.naming_originals(identified, local):
                metrics |= task.further_metrics(predicted, prepared, local, _answering)
        outcomes = task.outcomes(predicted, prepared, params)
        # The score is the first of the metrics that have an interval: see `score_name`.
        metrics = {score.name: metrics[score.name]} | metrics
        further = task.further_scores(prepared.manifest) if task.further_scores else ()
        for each in (score, *further):
            metrics |= _interval(outcomes, each) if each.name in metrics else {}
        _write_outcomes(new / "examples" / OUTCOMES, outcomes)
        for name, baseline in (task.baselines(prepared, params) if task.baselines else {}).items():
            metrics |= _beside(name, baseline, outcomes, score, further)
            _write_outcomes(baseline_file(new, name), baseline)
        shutil.copyfile(trained.folder / model_files.HISTORY, new / model_files.HISTORY)
        curves = figures.learning_curves(model_files.read_history(trained.folder))
        figures.save(curves, new / "plots" / "learning_curves.png", prepared.manifest.note)
        files.write_json(new / METRICS, metrics)
        files.seal(new)
        mlflow_runs.log_evaluation(trained.run_id, metrics, new, prepared.manifest, prepared.folder)
        hashes = {key: source.sha256 for key, source in identified.items()}
        mlflow_runs.tag_run(trained.run_id, {**hashes, **(task.tags(prepared) if task.tags else {})})
        mlflow_pages.log_score(trained.run_id, score.name, metrics[score.name])
    return Evaluated(out, metrics)


def _answering(folder: Path) -> Predict:
    """Return the function that answers requests with the registered version in a folder."""
    return model_files.load_predict(tasks.load(model_files.load_saved(folder).task), folder)


def _interval(outcomes: Outcomes, score: Score) -> dict[str, float]:
    """Return both ends of a metric's interval: `auc_low`, or `auc_low/<class>` for that of a class."""
    name, slash, group = score.name.partition("/")
    low, high = intervals.interval(outcomes, score)
    return {f"{name}_low{slash}{group}": low, f"{name}_high{slash}{group}": high}


def _beside(
    name: str, baseline: Outcomes, outcomes: Outcomes, score: Score, further: Sequence[Score]
) -> dict[str, float]:
    """Return a baseline's metrics, and by how much the model's score exceeds the baseline's, with its interval."""
    values = {each.name: intervals.value(baseline, each) for each in (score, *further)}
    metrics = {_of_baseline(metric, name): value for metric, value in values.items() if not math.isnan(value)}
    found = intervals.difference(baseline, outcomes, score)
    over = f"{score.name}_over_{name}"
    if not math.isnan(found.error):
        metrics |= dict(zip((f"{over}_low", f"{over}_high"), found.interval, strict=True))
    return metrics | {over: found.value}


def _of_baseline(metric: str, name: str) -> str:
    """Return the name of a baseline's metric: `auc_of_trees`, or `auc_of_trees/<class>` for that of a class."""
    first, slash, group = metric.partition("/")
    return f"{first}_of_{name}{slash}{group}"


def baseline_file(folder: Path, name: str) -> Path:
    """Return the file of an evaluation with the outcomes of a baseline."""
    return folder / "examples" / f"outcomes_of_{name}.csv"


def read_baselines(folder: Path) -> dict[str, Outcomes]:
    """Return the outcomes of the baselines beside which a model was evaluated, by name."""
    prefix, _, suffix = baseline_file(folder, "*").name.partition("*")
    files = sorted((folder / "examples").glob(f"{prefix}*{suffix}"))
    return {file.name.removeprefix(prefix).removesuffix(suffix): read_outcomes(file) for file in files}


def _predictions(model: Model, prepared: Prepared, trained: Trained, scratch: Path) -> inference.Predictions:
    """Return the network's predictions on the test split, computed by `evaluate.workers` workers."""
    folder = scratch / "predictions"
    folder.mkdir()
    work = partial(predict, model, prepared, trained.folder, folder)
    with gpus.of_evaluation(model) as held:
        launch.run(work, model.params.evaluate.workers, scratch, lambda event: None, trained.run_id, held)
    return inference.Predictions(folder)


_SAMPLE, _GROUP = "sample", "group "
"""Columns of outcomes.csv besides those that the score is computed from."""


def _write_outcomes(path: Path, outcomes: Outcomes) -> None:
    """Write one line per row, in the order of the samples; a sample without rows gets a line without values."""
    clusters = outcomes.clusters or [""] * len(outcomes.samples)
    columns = {name: _flat(name, values) for name, values in outcomes.columns.items()}
    names = [name for each in columns.values() for name in each]
    values = [column.tolist() for each in columns.values() for column in each.values()]
    rows: dict[int, list[list[str]]] = {}
    for number, sample in enumerate(outcomes.row_samples.tolist()):
        groups = [each[number] for each in outcomes.groups.values()]
        rows.setdefault(sample, []).append([*groups, *(repr(column[number]) for column in values)])
    nothing = [[""] * (len(outcomes.groups) + len(names))]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([_SAMPLE, "cluster", *(f"{_GROUP}{kind}" for kind in outcomes.groups), *names])
        for index, (sample, cluster) in enumerate(zip(outcomes.samples, clusters, strict=True)):
            table.writerows([sample, cluster, *row] for row in rows.get(index, nothing))


def _flat(name: str, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return a column (R,) unchanged, and one of (R, D) as D columns `name[0]` and so on."""
    if values.ndim == 1:
        return {name: values}
    return {f"{name}[{index}]": values[:, index] for index in range(values.shape[1])}


def read_outcomes(path: Path) -> Outcomes:
    """Read outcomes.csv, given its path or the folder of the evaluation.

    Raises:
        PedigreeError: it is missing or damaged.
    """
    path = path / "examples" / OUTCOMES if path.is_dir() else path
    try:
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        table = dict(zip(head, zip(*rows, strict=True), strict=True))
        return _parsed(table) if table.keys() >= _OLD else _outcomes(table)
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise PedigreeError(f"{path} is missing or damaged: run the evaluate stage again") from None


def _outcomes(table: Mapping[str, Sequence[str]]) -> Outcomes:
    names, clusters = table[_SAMPLE], table["cluster"]
    samples = list(dict.fromkeys(names))
    index = {name: number for number, name in enumerate(samples)}
    kinds = [column for column in table if column.startswith(_GROUP)]
    numbers = [column for column in table if column not in {_SAMPLE, "cluster", *kinds}]
    # A line without values stands for a sample without rows.
    filled = [number for number in range(len(names)) if table[numbers[0]][number]]
    return Outcomes(
        samples,
        _joined({name: np.array([float(table[name][number]) for number in filled]) for name in numbers}),
        None
        if len(filled) == len(samples) == len(names)
        else np.array([index[names[n]] for n in filled], np.int64),
        [dict(zip(names, clusters, strict=True))[name] for name in samples] if any(clusters) else (),
        {kind.removeprefix(_GROUP): [table[kind][number] for number in filled] for kind in kinds},
    )


def _joined(columns: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Undo `_flat`."""
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for name, values in columns.items():
        parts.setdefault(re.sub(r"\[\d+\]$", "", name), []).append(values)
    return {name: values[0] if name in columns else np.stack(values, axis=1) for name, values in parts.items()}


_OLD = {"sample", "class", "source", "sum", "count"}
"""Columns of outcomes.csv in versions registered before outcomes could have any columns."""
OLD_SCORE = scores.ratio("mean outcome", "more", "sum", "count")
"""The score of such versions."""


def _parsed(table: Mapping[str, Sequence[str]]) -> Outcomes:
    sums, counts = (np.array([float(value) for value in table[name]]) for name in ("sum", "count"))
    classes = {"class": table["class"]} if any(table["class"]) else {}
    sources = table["source"] if any(table["source"]) else ()
    return Outcomes(list(table["sample"]), {"sum": sums, "count": counts}, None, sources, classes)


def load(folder: Path) -> Evaluated:
    """Load what `evaluate` wrote."""
    if not folder.is_dir():
        raise PedigreeError(f"{folder} holds no evaluation: run the evaluate stage first")
    return Evaluated(folder, read_metrics(folder / METRICS))


def score_name(metrics: Mapping[str, float]) -> str:
    """Return the metric that is the score: the first one with an interval."""
    return next(name for name in metrics if f"{name}_low" in metrics)


def read_metrics(path: Path) -> dict[str, float]:
    """Read metrics.json.

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


def run(model: Model) -> None:
    """Run the stage alone, as dvc.yaml does, from build/<model>/model/ to build/<model>/evaluation/."""
    build = model.build
    with mlflow_store.answering():
        mlflow_store.connect(model.root)
        evaluate(model, prepare.load(build / "prepared"), train.load(build / "model"), build / "evaluation")
