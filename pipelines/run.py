"""`pedigree run`: the flows one after the other in this process, and a table of what came out."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components import params, tasks
from components.errors import PedigreeError, sentence
from components.params import TaskParams, nearest
from pipelines import server


def run(root: Path, names: list[str], profile: str | None, settings: list[str]) -> None:
    """Check everything that can be checked before a flow begins, then run each task's and print the results."""
    values = params.read(root / params.FILE)
    if profile:
        overlay = params.read(_profile(root, profile))
        values = overlay.over(values)
        names = names or [name for name in tasks.names(root) if name in overlay.tree.get("tasks", {})]
    names = names or tasks.names(root)

    def check() -> dict[str, TaskParams]:
        chosen = {name: _validated(values, name, settings) for name in names}
        missing = [name for name in names if not (root / "data" / name).is_dir()]
        if missing:
            raise PedigreeError(f"data/{missing[0]} is missing: run `pedigree data` to bring what data.dvc pins")
        return chosen

    def load() -> None:
        from components.adapters import mlflow_store
        from pipelines import flow  # noqa: F401

        with mlflow_store.answering():
            mlflow_store.connect(root)  # its first start makes tables, too

    # A terminal shows our own lines; Prefect's pages have the rest.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    with server.connected(check, load) as chosen:
        _show([_run_flow(root, name, chosen[name]) for name in names])


def _profile(root: Path, name: str) -> Path:
    known = sorted(path.stem for path in (root / "profiles").glob("*.yaml"))
    if name not in known:
        raise PedigreeError(
            f"there is no profiles/{name}.yaml{nearest(name, known)}: the profiles are {', '.join(known)}"
        )
    return root / "profiles" / f"{name}.yaml"


def _validated(values: params.Values, name: str, settings: list[str]) -> TaskParams:
    task = tasks.load(name)
    for setting in settings:
        values = params.assignment(setting, ("tasks", name)).over(values)
    validated: TaskParams = params.validate(task.params, values, ("tasks", name))
    return validated


@dataclass(frozen=True)
class _Outcome:
    name: str
    model: str
    score: str
    verdict: Sequence[Mapping[str, str | bool]]
    seconds: dict[str, float]
    run_url: str
    version_url: str


def _run_flow(root: Path, name: str, values: TaskParams) -> _Outcome:
    from components.adapters import mlflow_runs, mlflow_versions
    from pipelines import flow

    _quiet_known_errors()
    result = flow.build(name, root)(**values.model_dump(by_alias=True))
    registered, metrics, score = result.registered, result.evaluated.metrics, tasks.load(name).score
    interval = f"[{metrics[f'{score}_low']:.4g}, {metrics[f'{score}_high']:.4g}]"
    note = f"\n({result.prepared.manifest.note})" if result.prepared.manifest.note else ""
    return _Outcome(
        name=name,
        model=f"{registered.name} {registered.version}",
        score=f"{score} {metrics[score]:.4g} {interval}{note}",
        verdict=registered.verdict,
        seconds=result.seconds,
        run_url=mlflow_runs.run_url(result.trained.run_id),
        version_url=mlflow_versions.version_url(registered.name, registered.version),
    )


class _OneSentence(logging.Filter):
    """Take the traceback off a record about an error that its sentence explains."""

    def filter(self, record: logging.LogRecord) -> bool:
        error: Any = record.exc_info[1] if record.exc_info else None
        if error is not None and sentence(error) is not None:
            record.exc_info = None
        return True


def _quiet_known_errors() -> None:
    if not os.environ.get("PEDIGREE_DEBUG"):
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).addFilter(_OneSentence())


def _show(outcomes: list[_Outcome]) -> None:
    from components.adapters.mlflow_store import UI

    console = Console(soft_wrap=True, highlight=False)
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("task", "model", "test", "against the champion", "seconds"):
        table.add_column(column)
    for o in outcomes:
        stages = "\n".join(f"{stage} {seconds:.0f}" for stage, seconds in o.seconds.items())
        promoted = all(rule["passed"] for rule in o.verdict)
        rules = "\n".join(f"{'✓' if rule['passed'] else '✗'} {rule['rule']}: {rule['found']}" for rule in o.verdict)
        model = f"{o.model}\n{'champion' if promoted else 'challenger'}"
        table.add_row(*(Text(cell) for cell in (o.name, model, o.score, rules, stages)))  # brackets are no markup
    console.print(table)
    for o in outcomes:
        console.print(f"{o.name} run      {o.run_url}\n{o.name} version  {o.version_url}")
    if all(o.run_url.startswith(UI) for o in outcomes):
        console.print("`make ui` serves these pages, unless `pedigree up` does already.")
