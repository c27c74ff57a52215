"""What MLflow's pages show first: training pages, the score before other metrics, and a run's user and source.

Each of these is controlled in a different way (observed in 3.17.2; only the first is documented):

- "Created by" and "Source" are tags of the run.
- Whether an experiment opens on training runs or on agent pages depends on the browser: it remembers the last
  choice, starts with agent pages (unless `mlflow_app.py` serves them), and follows `workflowType` in an address.
  Other versions of MLflow use the experiment's tag.
- The list of runs shows metrics only in a saved view. Outside saved views, charts of metrics without a slash come
  after those with one. Saved views are tags of the experiment.
- The comparison of runs opens on the metric that the database returns first: in SQLite, the one logged first. Its
  table is sorted by name.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, SourceType
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from components import display
from components.adapters.mlflow_store import base
from components.trust.lineage import NONE

SCORE = "score"
"""A run's metric with the score on the test split, and its tag with the score's own name and value as text."""
_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"
_TRAINING_PAGES = "workflowType=machine_learning"
_VIEW = "mlflow.sharedViewState."
"""Prefix of an experiment's tag for a saved view; the rest is the view's id."""
_RESERVED = -1
"""Step of a reserved score: before the step of any metric."""


def experiment_url(experiment_id: str) -> str:
    """Return the address of an experiment's runs in the view that shows scores first."""
    return f"{base()}/#/experiments/{experiment_id}/runs?{_TRAINING_PAGES}&viewStateShareKey={SCORE}"


def run_url(experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page."""
    return f"{base()}/#/experiments/{experiment_id}/runs/{run_id}?{_TRAINING_PAGES}"


def version_url(name: str, version: int) -> str:
    """Return the address of a registered version's page."""
    return f"{base()}/#/models/{name}/versions/{version}?{_TRAINING_PAGES}"


def source_tags(user: str, command: str, commit: str) -> dict[str, str]:
    """Return the tags that a run's page shows as "Created by" and "Source".

    Args:
        user: The user who started the run.
        command: The command that runs the model; the run's parameters are logged beside it.
        commit: The git commit, or `NONE`.
    """
    tags = {
        MLFLOW_USER: user,
        MLFLOW_SOURCE_NAME: command,
        MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.LOCAL),
    }
    return tags | ({} if commit == NONE else {MLFLOW_GIT_COMMIT: commit})


def set_up(experiment: Experiment) -> None:
    """Tag an experiment as model training, unless it has another kind, and save the view "Score first"."""
    client, view = MlflowClient(), f"{_VIEW}{SCORE}"
    if _KIND not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, _KIND, _TRAINING)
    state = _score_first(experiment.creation_time or 0)
    if experiment.tags.get(view) != state:
        client.set_experiment_tag(experiment.experiment_id, view, state)


def _score_first(created: int) -> str:
    """Return the saved view in which the score is the first column and the first chart."""
    columns = [
        *(f"metrics.`{name}`" for name in (SCORE, "val/loss", "train/loss")),
        *(f"attributes.`{name}`" for name in ("User", "Source", "Version", "Models")),
    ]
    sections = ("Model metrics", "val", "test", "train", "System metrics")  # the first is for names without a slash
    state = {
        "selectedColumns": columns,
        "columnOrder": columns,
        "compareRunCharts": [],  # MLflow adds a chart for each metric, in the section of its prefix
        "compareRunSections": [
            {"uuid": name, "name": name, "display": name != "System metrics", "isReordered": False}
            for name in sections
        ],
        "isAccordionReordered": True,  # otherwise MLflow sorts the sections by name
    }
    return json.dumps(
        {"name": "Score first", "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
    )


def reserve_score(run_id: str) -> None:
    """Log a new run's score as NaN, so that it is the run's first metric although it is known last.

    Until the score is logged, no filter on scores matches the run, and MLflow sorts it last and draws no bar.
    """
    client = MlflowClient()
    if SCORE not in client.get_run(run_id).data.metrics:
        client.log_batch(run_id, [Metric(SCORE, math.nan, _now(), _RESERVED)])


def log_score(run_id: str, name: str, value: float) -> None:
    """Log a run's score on the test split, as the metric of all tasks and as text with the score's own name."""
    client = MlflowClient()
    if client.get_run(run_id).data.metrics.get(SCORE) != value:
        client.log_batch(run_id, [Metric(SCORE, value, _now(), 0)])
    client.set_tag(run_id, SCORE, score_text(name, value))


def score_text(name: str, value: float) -> str:
    """Return a score as text, such as `accuracy 0.983`."""
    return f"{name} {value:.4g}"


def tables(metrics: Mapping[str, float]) -> dict[str, list[dict[str, str | float]]]:
    """Return tables of metrics named `<measure>/<group>`, one table for all measures with the same groups.

    Its name, which becomes that of a file, joins those of the measures, without the ends of their intervals.
    """
    measures: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        measure, slash, group = name.partition("/")
        if slash:
            measures.setdefault(measure, {})[group] = value
    by_groups: dict[tuple[str, ...], list[str]] = {}
    for measure, values in measures.items():
        by_groups.setdefault(tuple(values), []).append(measure)
    return {
        "_".join(_without_ends(names)): [
            {"group": group, **{name: measures[name][group] for name in names}} for group in groups
        ]
        for groups, names in by_groups.items()
    }


def _without_ends(measures: Sequence[str]) -> list[str]:
    """Return the measures that are no end of another one's interval, such as `auc_low`."""
    ends = {f"{measure}_{end}" for measure in measures for end in ("low", "high")}
    return [measure for measure in measures if measure not in ends]


def log_table(run_id: str, name: str, rows: Sequence[Mapping[str, str | float]]) -> None:
    """Log a table, such as metrics by class or speaker, as an artifact of a run, replacing one with the same name.

    Args:
        run_id: The run.
        name: The table's name, and that of its file without `.json`.
        rows: The rows, all with the same columns.
    """
    client, file = MlflowClient(), f"{name}.json"
    columns = list(rows[0]) if rows else []
    # The client's log_table would append to the table of an earlier evaluation.
    client.log_dict(run_id, {"columns": columns, "data": [[row[c] for c in columns] for row in rows]}, file)
    logged: list[dict[str, Any]] = json.loads(client.get_run(run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
    entry = {"path": file, "type": "table"}
    if entry not in logged:
        client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*logged, entry]))


def description(score: str, reason: str, *parts: str) -> str:
    """Return the description of a run or version in Markdown: score and verdict first, as MLflow folds the rest.

    Args:
        score: The score as plain text.
        reason: The outcome of the verdict, in one sentence of plain text.
        parts: Further paragraphs in Markdown; empty ones are omitted.
    """
    first = f"**{display.markdown(score)}** · {display.markdown(reason)}"
    return "\n\n".join(filter(None, (first, *parts)))


def _now() -> int:
    return int(time.time() * 1000)
