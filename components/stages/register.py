"""An evaluated model -> a version in MLflow's registry, and the gate between challenger and champion."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from components import display
from components.adapters import (
    dvc_cache,
    dvc_data,
    mlflow_pages,
    mlflow_runs,
    mlflow_store,
    mlflow_versions,
    version_process,
)
from components.adapters.mlflow_versions import CHALLENGER, CHAMPION, REASON, Version
from components.contracts import Evaluated, Manifest, Outcomes, Prepared, Registered, Rejected, Row, Task, Trained
from components.errors import PedigreeError
from components.models import Model
from components.params import GateParams
from components.runtime import files
from components.runtime.progress import Progress
from components.stages import evaluate, prepare, summary, train
from components.training import model_files
from components.trust import gate, lineage
from components.trust.gate import Candidate, Champion, Rule
from components.trust.lineage import NONE

TEST_SAMPLES = "data.test_samples"
"""Tag of a version: hash of the raw data and the names of the test samples."""
REJECTED = 0.05
"""Largest share of a new test split that the champion may reject: beyond it, the reason is hardly the samples."""
SEEN = " on samples that it may have been trained on"
"""Said of a champion that answers samples that were none of its own test split."""
PREDICTIONS = 20
"""Predictions whose fastest is the latency: other programs make an answer slower, and never faster."""
PREDICTING_SECONDS = 10.0
"""Time after which no further prediction starts."""

_log = logging.getLogger("pedigree.register")


def register(model: Model, prepared: Prepared, trained: Trained, evaluated: Evaluated, out: Path) -> Registered:
    """Register the model, apply the gate, and write the resulting version to the file `out`.

    An interrupted registration is completed, and its version keeps its verdict.
    """
    files.check_seal(prepared.folder, "prepare")
    files.check_seal(evaluated.folder, "evaluate")
    with mlflow_versions.changing(model.name):  # the champion must not change between verdict and promotion
        return _register(model, prepared, trained, evaluated, out)


def _register(model: Model, prepared: Prepared, trained: Trained, evaluated: Evaluated, out: Path) -> Registered:
    name, note = model.name, display.markdown(prepared.manifest.note)
    ancestry = lineage.read(trained.folder)
    version = mlflow_versions.interrupted(trained.run_id, name)
    rules: Sequence[Rule]
    if version and {REASON, gate.TAG} <= set(version.tags):
        rules, reason = gate.parse(version.tags[gate.TAG]), version.tags[REASON]
    else:
        rules, reason = _judge(model, prepared, trained, evaluated, out)
    promoted = all(rule.passed for rule in rules)
    score_name = model.task.score(prepared.manifest).name
    score = mlflow_pages.score_text(score_name, evaluated.metrics[score_name])
    samples = _test_samples(prepared, evaluate.read_outcomes(evaluated.folder))
    tags = ancestry.tags() | {mlflow_versions.SCORE: score, TEST_SAMPLES: samples}
    tags |= model.task.tags(prepared) if model.task.tags else {}
    records = {
        lineage.TAG: ancestry.model_dump_json(),
        REASON: reason,
        gate.TAG: json.dumps([asdict(rule) for rule in rules]),
    }
    if version:
        version = mlflow_versions.tag_version(version, tags, records)
    else:
        parts = {
            "model": trained.folder,
            "outcomes": evaluated.folder / "examples" / evaluate.OUTCOMES,
            "metrics": evaluated.folder / evaluate.METRICS,
        }
        served = model.task.served(prepared.manifest, model.params)
        version = mlflow_versions.register(trained.run_id, name, parts, served, tags, records)
    verdict = gate.markdown(rules)
    more = (note, f"### Verdict\n\n{verdict}", f"### Ancestry\n\n{ancestry.markdown()}")
    mlflow_versions.set_description(version, mlflow_pages.description(score, reason, *more))
    headline = f"{name} version {version.version}, {reason}"
    mlflow_runs.describe_run(trained.run_id, mlflow_pages.description(score, headline, note, verdict))
    mlflow_versions.set_alias(version, CHALLENGER)
    if promoted and not mlflow_versions.was_promoted(version):
        mlflow_versions.promote(version, mlflow_versions.GATE, reason)
    if not promoted and not mlflow_versions.version_at(name, CHAMPION):
        _log.info(mlflow_versions.without_champion(version))
    aliases = (CHALLENGER, CHAMPION) if promoted else (CHALLENGER,)
    registered = Registered(name, version.version, aliases, reason, [asdict(rule) for rule in rules])
    mlflow_runs.name_with_version(trained.run_id, name, version.version)
    summary.link(model, evaluated)
    files.write_json(out, {**vars(registered), "run_id": trained.run_id, "note": prepared.manifest.note})
    mlflow_runs.finish(trained.run_id)
    mlflow_versions.mark_complete(version)
    return registered


def load(file: Path) -> Registered:
    """Load what `register` wrote.

    Raises:
        PedigreeError: it is missing or damaged.
    """
    try:
        record = json.loads(file.read_text())
        rest = {key: record[key] for key in ("name", "version", "reason", "verdict")}
        return Registered(**rest, aliases=tuple(record["aliases"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise PedigreeError(f"{file} is missing or damaged: run the register stage again") from None


def _judge(
    model: Model, prepared: Prepared, trained: Trained, evaluated: Evaluated, out: Path
) -> tuple[Sequence[Rule], str]:
    """Return the gate's rules applied to the model, and the decision in one sentence."""
    task, params = model.task, model.params
    version = mlflow_versions.version_at(model.name, CHAMPION)
    outcomes = evaluate.read_outcomes(evaluated.folder)
    with files.scratch(out) as scratch:
        champion = _champion(model, prepared, version, outcomes, scratch) if version else None
    weights = trained.folder / model_files.WEIGHTS
    ancestry = lineage.read(trained.folder)
    new = Candidate(
        evaluated.metrics,
        outcomes,
        weights.stat().st_size / 1e6,
        _milliseconds(task, trained.folder),
        ancestry.data.pinned != NONE,
        prepared.manifest.untested,
        evaluate.read_baselines(evaluated.folder),
    )
    tested = ancestry.data.test_split, _test_samples(prepared, outcomes)
    earlier = len(challengers(model.name, *tested) - {ancestry.weights})
    rules = gate.judge(new, champion, task.score(prepared.manifest), params.register_.gate, earlier)
    return rules, _reason(rules, version, params.register_.gate) + ("" if new.pinned else f"; {gate.NOT_PINNED}")


def _test_samples(prepared: Prepared, outcomes: Outcomes) -> str:
    """Return a hash that is equal for test splits of the same samples, however they were prepared."""
    manifest = prepared.manifest
    return lineage.digest([manifest.raw, manifest.tested or sorted(outcomes.samples)])


def challengers(name: str, test_split: str, test_samples: str) -> set[str]:
    """Return the hashes of all weights that were compared with a model's champion on the same test samples.

    Args:
        name: The registered model.
        test_split: Hash of the prepared test split.
        test_samples: `TEST_SAMPLES` of a version, which is also equal for another preparation of the samples.
    """
    return {
        version.tags["weights"]
        for version in mlflow_versions.versions()
        if version.name == name
        and (version.tags.get("data.test_split") == test_split or version.tags.get(TEST_SAMPLES) == test_samples)
        and gate.compared(gate.parse(version.tags.get(gate.TAG, "[]")))
    }


def _champion(model: Model, prepared: Prepared, version: Version, new: Outcomes, scratch: Path) -> Champion:
    """Return the champion with its outcomes on the present test split.

    If it was tested on another one, it answers the present one as it answers its callers: in a process of its own,
    with its own code.
    """
    name = f"version {version.version}"
    try:
        saved = mlflow_versions.files_of(version, scratch)
        described = model_files.load_saved(saved.model)
        if described.manifest.splits["test"].sha256 == prepared.manifest.splits["test"].sha256:
            outcomes = evaluate.read_outcomes(saved.outcomes)
            if comparable(outcomes, new):
                return Champion(name, outcomes)
        tested = evaluate.read_outcomes(saved.outcomes).samples
        learnt = "" if _untrained(described.manifest, tested, prepared.manifest, new.samples) else SEEN
        return Champion(f"{name}, re-evaluated{learnt}", _answered(model, prepared, version, scratch))
    except PedigreeError as error:
        data = model.raw.relative_to(model.root)
        instead = (
            f"`pedigree promote {model.name} VERSION --why …` makes it the champion all the same, and `pedigree "
            f"new NAME --like {model.name} --data {data}` adds a model with a champion of its own"
        )
        return Champion(name, None, str(error), instead)


def _untrained(old: Manifest, tested: Sequence[str], new: Manifest, samples: Sequence[str]) -> bool:
    """Return whether all new test samples are test samples of an old version, which was not trained on them."""
    if old.tested or new.tested:
        return (old.raw, old.tested) == (new.raw, new.tested)
    return set(samples) <= set(tested)


def _answered(model: Model, prepared: Prepared, version: Version, scratch: Path) -> Outcomes:
    """Return the outcomes of a version that answers the test split through its served function."""
    task = model.task
    if task.rows is None or task.outcomes_from is None:
        raise PedigreeError("it was tested on other samples")
    rows = task.rows(prepared, partial(_raw, model, prepared, scratch))
    _log.info("version %d of %s answers the new test split with its own code", version.version, model.name)
    with version_process.answering(version, task.row_params, only_known=True) as champion:
        rejected: list[Rejected] = []
        outcomes = task.outcomes_from(_shown(champion.answers(rows), rejected), prepared)
    if len(rejected) > REJECTED * len(outcomes.samples):
        reason, _ = Counter(each.reason for each in rejected).most_common(1)[0]
        raise PedigreeError(f"it rejects {len(rejected):,} of the new test samples, most of them because: {reason}")
    return outcomes


def _raw(model: Model, prepared: Prepared, scratch: Path) -> Path:
    """Return a folder with the raw files from which the data were prepared.

    Raises:
        PedigreeError: the data set has changed, and DVC's cache does not have them.
    """
    md5 = prepared.manifest.raw
    if dvc_data.has_version(model.raw, md5):
        return model.raw
    if md5 == NONE or not dvc_cache.holds(model.root, md5):
        raise PedigreeError(
            f"it was tested on other samples, and the raw files of the new ones are neither in {model.raw} nor in "
            "DVC's cache"
        )
    dvc_cache.write_version(model.root, md5, scratch / "raw")
    return scratch / "raw"


def _shown(answers: Iterable[Row | Rejected], rejected: list[Rejected]) -> Iterator[Row | Rejected]:
    """Yield answers, collect the rejections, and say from time to time how many answers there were."""
    progress = Progress(_log)
    for number, answer in enumerate(answers):
        progress.say(f"{number:,} rows answered")
        if isinstance(answer, Rejected):
            rejected.append(answer)
        yield answer


def comparable(old: Outcomes, new: Outcomes) -> bool:
    """Return whether outcomes have the same samples, columns and kinds of groups."""
    return list(old.samples) == list(new.samples) and all(
        before.keys() == after.keys() for before, after in ((old.columns, new.columns), (old.groups, new.groups))
    )


def _milliseconds(task: Task[Any, Any], folder: Path) -> float:
    """Return the time of the fastest of several predictions for the served model's example."""
    described = model_files.load_saved(folder)
    predict = model_files.load_predict(task, folder)
    example = task.served(described.manifest, task.params.model_validate(described.params)).example
    times: list[float] = []
    while len(times) < PREDICTIONS and sum(times) < 1000 * PREDICTING_SECONDS:
        started = time.perf_counter()
        (answer,) = predict([example], {})
        times.append(1000 * (time.perf_counter() - started))
        if isinstance(answer, Rejected):
            raise PedigreeError(
                f"the model rejects the example of its signature ({answer.reason}): correct `served` of the task"
            )
    return min(times)


def _reason(rules: Sequence[Rule], champion: Version | None, bounds: GateParams) -> str:
    if failed := [rule.objection for rule in rules if not rule.passed]:
        return f"challenger: {'; '.join(failed)}"
    if champion is None:
        unbounded = not (bounds.at_least or bounds.at_most)
        return (
            f"champion: there was none before{', and register.gate has no bounds for metrics' if unbounded else ''}"
        )
    return f"champion: it passed every rule and replaces version {champion.version}"


def run(model: Model) -> None:
    """Run the stage alone, as dvc.yaml does, from build/<model>/evaluation/ to build/<model>/registered.json."""
    build = model.build
    with mlflow_store.answering():
        mlflow_store.connect(model.root)
        prepared, trained = prepare.load(build / "prepared"), train.load(build / "model")
        evaluated = evaluate.load(build / "evaluation")
        registered = register(model, prepared, trained, evaluated, build / "registered.json")
        summary.show([summary.outcome(model, prepared, trained, evaluated, registered)])
