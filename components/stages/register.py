"""An evaluated model -> a version in MLflow's registry, and the gate between challenger and champion."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components import files
from components.adapters import mlflow_runs, mlflow_store, mlflow_versions
from components.adapters.mlflow_versions import CHALLENGER, CHAMPION, Version
from components.contracts import Evaluated, Outcomes, Prepared, Registered, Task, Trained
from components.errors import PedigreeError
from components.params import TaskParams
from components.stages import evaluate, prepare, train
from components.training import saved
from components.trust import gate, lineage
from components.trust.gate import Candidate, Rival, Rule

REASON = "reason"
"""Record of a version: what followed from its verdict."""
ANSWERS = 20
"""Answers whose median is the latency, after one that is not counted."""


def register(
    task: Task[Any], params: TaskParams, prepared: Prepared, trained: Trained, evaluated: Evaluated, out: Path
) -> Registered:
    """Register the model, judge it at the gate, and write which version it became to the file `out`.

    A version whose registration was cut off is taken up, and keeps the verdict that it had.
    """
    files.check_seal(prepared.folder, "prepare")
    files.check_seal(evaluated.folder, "evaluate")
    with mlflow_versions.changing(params.register_.name):  # nobody becomes champion between judgement and promotion
        return _register(task, params, prepared, trained, evaluated, out)


def _register(
    task: Task[Any], params: TaskParams, prepared: Prepared, trained: Trained, evaluated: Evaluated, out: Path
) -> Registered:
    name, note = params.register_.name, prepared.manifest.note
    made = lineage.read(trained.folder)
    version = mlflow_versions.cut_off(trained.run_id, name)
    rules: Sequence[Rule]
    if version and {REASON, gate.TAG} <= set(version.tags):
        rules, reason = gate.parse(version.tags[gate.TAG]), version.tags[REASON]
    else:
        rules, reason = _judged(task, params, prepared, trained, evaluated, out)
    promoted = all(rule.passed for rule in rules)
    records = {
        lineage.TAG: made.model_dump_json(),
        REASON: reason,
        gate.TAG: json.dumps([asdict(rule) for rule in rules]),
    }
    if version:
        version = mlflow_versions.say(version, made.tags(), records)
    else:
        parts = {
            "model": trained.folder,
            "outcomes": evaluated.folder / "examples" / evaluate.OUTCOMES,
            "metrics": evaluated.folder / evaluate.METRICS,
        }
        served = task.served(prepared.manifest)
        version = mlflow_versions.register(trained.run_id, name, parts, served, made.tags(), records)
    head, verdict = "\n\n".join(filter(None, [reason, note])), gate.markdown(rules)
    mlflow_versions.describe(version, f"{head}\n\n### Verdict\n\n{verdict}\n\n### Ancestry\n\n{made.markdown()}")
    mlflow_runs.describe_run(trained.run_id, f"{name} version {version.version}, {head}\n\n{verdict}")
    mlflow_versions.set_alias(version, CHALLENGER)
    if promoted and not mlflow_versions.was_promoted(version):
        mlflow_versions.promote(version, "the gate", reason)
    aliases = (CHALLENGER, CHAMPION) if promoted else (CHALLENGER,)
    registered = Registered(name, version.version, aliases, reason, [asdict(rule) for rule in rules])
    files.write_json(out, {**vars(registered), "run_id": trained.run_id, "note": note})
    mlflow_runs.finish(trained.run_id)
    mlflow_versions.done(version)
    return registered


def load(file: Path) -> Registered:
    """Take up what `register` wrote.

    Raises:
        PedigreeError: it is missing or damaged.
    """
    try:
        told = json.loads(file.read_text())
        rest = {key: told[key] for key in ("name", "version", "reason", "verdict")}
        return Registered(**rest, aliases=tuple(told["aliases"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise PedigreeError(f"{file} is missing or damaged: run the register stage again") from None


def _judged(
    task: Task[Any], params: TaskParams, prepared: Prepared, trained: Trained, evaluated: Evaluated, out: Path
) -> tuple[Sequence[Rule], str]:
    """Return the gate's rules on the model, and in one sentence what follows from them."""
    champion = mlflow_versions.version_at(params.register_.name, CHAMPION)
    outcomes = evaluate.read_outcomes(evaluated.folder)
    with files.scratch(out) as scratch:
        rival = _rival(task, params, prepared, champion, outcomes, scratch) if champion else None
    weights = trained.folder / saved.WEIGHTS
    new = Candidate(evaluated.metrics, outcomes, weights.stat().st_size / 1e6, _milliseconds(task, trained.folder))
    rules = gate.judge(new, rival, task.better, params.register_.gate, params.evaluate)
    return rules, _reason(rules, champion)


def _rival(
    task: Task[Any], params: TaskParams, prepared: Prepared, champion: Version, new: Outcomes, scratch: Path
) -> Rival:
    """Return the champion with its outcomes on the present test split, computed anew where it was another."""
    name = f"version {champion.version}"
    try:
        kept = mlflow_versions.files_of(champion, scratch)
        described = saved.load_saved(kept.model)
        if described.manifest.splits["test"].sha256 == prepared.manifest.splits["test"].sha256:
            outcomes = evaluate.read_outcomes(kept.outcomes)
            if list(outcomes.names) == list(new.names):
                return Rival(name, outcomes)
        others = [
            fact
            for fact in sorted(task.readable)
            if described.manifest.facts.get(fact) != prepared.manifest.facts.get(fact)
        ]
        if others:
            return Rival(name, None, f"it cannot read the new test split, whose {', '.join(others)} differ")
        predictions = evaluate.predictions(task, params, kept.model, prepared, scratch, "rival")
        return Rival(f"{name}, evaluated anew", task.outcomes(predictions, prepared))
    except PedigreeError as error:
        return Rival(name, None, str(error))


def _milliseconds(task: Task[Any], folder: Path) -> float:
    """Return the median time of one answer to the example of the served model."""
    described = saved.load_saved(folder)
    predict = task.load_predict(saved.rebuild(task, folder), described.manifest)
    example, taken = task.served(described.manifest).example, []
    for _ in range(1 + ANSWERS):
        started = time.perf_counter()
        predict([example], {})
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken[1:])


def _reason(rules: Sequence[Rule], champion: Version | None) -> str:
    failed = [f"{rule.rule} ({rule.found})" for rule in rules if not rule.passed]
    if failed:
        return f"challenger: it is not {'; nor '.join(failed)}"
    if champion is None:
        return "champion: there was none before"
    return f"champion: it passed every rule, and version {champion.version} was champion before"


def run(task: Task[Any], params: TaskParams, root: Path) -> None:
    """Run the stage by itself, as dvc.yaml does: from build/<task>/evaluation/ to build/<task>/registered.json."""
    build = root / "build" / task.name
    with mlflow_store.answering():
        mlflow_store.connect(root)
        prepared, trained = prepare.load(build / "prepared"), train.load(build / "model")
        register(task, params, prepared, trained, evaluate.load(build / "evaluation"), build / "registered.json")
