"""`pedigree run`: runs flows one after the other in this process, and prints a table of the results."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from components import models
from components.errors import DEBUG, PedigreeError, sentence
from components.models import Model
from components.params import Values, nearest
from components.runtime import addresses
from pipelines import server, terminal


def run(root: Path, names: list[str], task: str | None, profile: str | None, settings: list[str]) -> None:
    """Check everything that can be checked up front, then run each model's flow and print the results.

    Args:
        root: The project's folder.
        names: Names of models; if empty, all models of `task` or of the profile's task, or else all models.
        task: See `names`.
        profile: Name of a file in profiles/ that overrides parameters of each model.
        settings: Single parameters that override those, such as `train.epochs=3`.

    Raises:
        PedigreeError: a model, the profile, a parameter, data or a server is missing or invalid, or a stage failed.
    """
    values = models.read(root)
    over = models.profile(root, profile) if profile else None
    names = names or _of_task(values, task or (over.task if over else None))

    def check() -> list[Model]:
        addresses.mlflow(root)  # a wrong port in the environment would fail the flow at its last step
        chosen = [models.from_values(values, root, name, over, settings) for name in names]
        for model in chosen:
            model.expect_data()
        return chosen

    def load() -> None:
        from components.adapters import mlflow_store
        from pipelines import flow  # noqa: F401

        with mlflow_store.answering():
            mlflow_store.connect(root)  # the first connection also creates tables

    # The terminal shows only our own lines; Prefect's UI has the rest.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    _quiet_known_errors()
    with server.connected(check, load) as chosen:
        outcomes: list[_Outcome] = []
        try:
            for model in chosen:
                outcomes.append(_run_flow(model))
        finally:  # also of those that finished before one failed
            if outcomes:
                _show(outcomes)


def _of_task(values: Values, task: str | None) -> list[str]:
    listed = models.listed(values)
    names = [each.name for each in listed if task in (None, each.task)]
    if not names:
        used = sorted({each.task for each in listed})
        raise PedigreeError(
            f"no model in params.yaml has the task {task}{nearest(str(task), used)}: use one of {', '.join(used)}"
        )
    return names


@dataclass(frozen=True)
class _Outcome:
    name: str
    version: str
    score: str
    interval: str
    verdict: Sequence[Mapping[str, str | bool]]
    reason: str
    """The decision that followed from the verdict, in one sentence that begins with the role."""
    role: str
    """Whether the version is now the champion or a challenger."""
    seconds: dict[str, float]
    runs_url: str
    run_url: str
    version_url: str


def _run_flow(model: Model) -> _Outcome:
    from components.adapters import mlflow_pages, mlflow_runs, mlflow_versions
    from pipelines import flow

    result = flow.build(model.name, model.root)(**model.params.model_dump(by_alias=True))
    registered, metrics = result.registered, result.evaluated.metrics
    score = model.task.score(result.prepared.manifest).name
    note = f"\n({result.prepared.manifest.note})" if result.prepared.manifest.note else ""
    return _Outcome(
        name=model.name,
        version=f"version {registered.version}",
        score=mlflow_pages.score_text(score, metrics[score]),
        interval=f"[{metrics[f'{score}_low']:.4g}, {metrics[f'{score}_high']:.4g}]{note}",
        verdict=registered.verdict,
        reason=registered.reason,
        role="champion" if mlflow_versions.CHAMPION in registered.aliases else "challenger",
        seconds=result.seconds,
        runs_url=mlflow_runs.experiment_url(result.trained.run_id),
        run_url=mlflow_runs.run_url(result.trained.run_id),
        version_url=mlflow_pages.version_url(registered.name, registered.version),
    )


class _OneSentence(logging.Filter):
    """Drop the traceback from log records of errors that have a sentence."""

    def filter(self, record: logging.LogRecord) -> bool:
        error: Any = record.exc_info[1] if record.exc_info else None
        if error is not None and sentence(error) is not None:
            record.exc_info = None
        return True


def _quiet_known_errors() -> None:
    if not os.environ.get(DEBUG):
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).addFilter(_OneSentence())


def _verdict(o: _Outcome) -> str:
    """Return what the gate decided and why, and a line for each of its rules."""
    did = "is the champion" if o.role == "champion" else "was not promoted"
    rules = [f"  {'✓' if rule['passed'] else '✗'} {rule['rule']}: {rule['found']}" for rule in o.verdict]
    return "\n".join([f"{o.name} {o.version} {did}: {o.reason.partition(': ')[2]}", *rules, ""])


def _show(outcomes: list[_Outcome]) -> None:
    from components.adapters import mlflow_store

    console = terminal.console(soft_wrap=True)
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("model", "version", "test", "seconds"):
        table.add_column(column)
    for o in outcomes:
        stages = "\n".join(f"{stage} {seconds:.0f}" for stage, seconds in o.seconds.items())
        table.add_row(o.name, f"{o.version}\n{o.role}", f"{o.score} {o.interval}", stages)
    console.print(table)
    for o in outcomes:
        console.print(_verdict(o))
    for o in outcomes:
        console.print(f"{o.name} runs     {o.runs_url}")
        console.print(f"{o.name} run      {o.run_url}\n{o.name} version  {o.version_url}")
    if not mlflow_store.is_server() and not addresses.serves_mlflow(Path.cwd()):
        console.print("Start `pedigree ui` to open these pages.")
    for o in outcomes:
        console.print(f"{o.name}: {o.score} ({o.version}, {o.role})")
