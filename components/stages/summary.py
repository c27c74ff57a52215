"""What a run prints at its end, whoever ran it: score, verdict, and where figures, metrics and pages are."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from rich.box import SIMPLE
from rich.console import Console  # noqa: TID251 - what it shows is escaped below
from rich.table import Table

from components.adapters import mlflow_pages, mlflow_runs, mlflow_store, mlflow_versions
from components.contracts import Evaluated, Prepared, Registered, Trained
from components.display import printable
from components.models import Model
from components.runtime import addresses, files

LATEST = "latest"
"""Link below a model's folder in build/ to the evaluation that was registered last."""


@dataclass(frozen=True)
class Outcome:
    """What is shown of one registered version."""

    name: str
    version: str
    score: str
    interval: str
    verdict: Sequence[Mapping[str, str | bool]]
    reason: str
    """The decision that followed from the verdict, in one sentence that begins with the role."""
    role: str
    """Whether the version is now the champion or a challenger."""
    seconds: Mapping[str, float]
    files: str
    runs_url: str
    run_url: str
    version_url: str


def outcome(
    model: Model,
    prepared: Prepared,
    trained: Trained,
    evaluated: Evaluated,
    registered: Registered,
    seconds: Mapping[str, float] = MappingProxyType({}),
) -> Outcome:
    """Return what to show of a version, from the results of the four stages and the seconds that each took."""
    metrics, manifest = evaluated.metrics, prepared.manifest
    score = model.task.score(manifest).name
    note = f"\n({manifest.note})" if manifest.note else ""
    return Outcome(
        name=model.name,
        version=f"version {registered.version}",
        score=mlflow_pages.score_text(score, metrics[score]),
        interval=f"[{metrics[f'{score}_low']:.4g}, {metrics[f'{score}_high']:.4g}]{note}",
        verdict=registered.verdict,
        reason=registered.reason,
        role="champion" if mlflow_versions.CHAMPION in registered.aliases else "challenger",
        seconds=seconds,
        files=os.path.relpath(evaluated.folder, model.root),
        runs_url=mlflow_runs.experiment_url(trained.run_id),
        run_url=mlflow_runs.run_url(trained.run_id),
        version_url=mlflow_pages.version_url(registered.name, registered.version),
    )


def show(outcomes: Sequence[Outcome]) -> None:
    """Print a table of versions, then for each the verdict, its files, its pages, and last its score."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    table = Table(box=SIMPLE, pad_edge=False)
    timed = any(o.seconds for o in outcomes)
    for column in ("model", "version", "test", *(["seconds"] if timed else [])):
        table.add_column(column)
    for o in outcomes:
        stages = "\n".join(f"{stage} {seconds:.0f}" for stage, seconds in o.seconds.items())
        cells = (o.name, f"{o.version}\n{o.role}", f"{o.score} {o.interval}", *([stages] if timed else []))
        table.add_row(*map(printable, cells))
    console.print(table)
    for o in outcomes:
        console.print(printable(_verdict(o)))
    for o in outcomes:
        console.print(printable(f"{o.name} files    {o.files}"))
        console.print(f"{o.name} runs     {o.runs_url}")
        console.print(f"{o.name} run      {o.run_url}\n{o.name} version  {o.version_url}")
    if not mlflow_store.is_server() and not addresses.serves_mlflow(Path.cwd()):
        console.print("Start `pedigree ui` to open these pages.")
    for o in outcomes:
        console.print(f"{o.name}: {o.score} ({o.version}, {o.role})")


def _verdict(o: Outcome) -> str:
    """Return what the gate decided and why, and a line for each of its rules."""
    did = "is the champion" if o.role == "champion" else "was not promoted"
    rules = [f"  {'✓' if rule['passed'] else '✗'} {rule['rule']}: {rule['found']}" for rule in o.verdict]
    return "\n".join([f"{o.name} {o.version} {did}: {o.reason.partition(': ')[2]}", *rules, ""])


def link(model: Model, evaluated: Evaluated) -> None:
    """Make `build/<model>/latest` a link to an evaluation: the folder of a flow run or that of the DVC stages."""
    files.link(model.build / LATEST, evaluated.folder)
