"""An evaluated model -> a version in MLflow's registry, champion or challenger."""

from pathlib import Path
from typing import Any, Literal

from components import files
from components.adapters import mlflow_store
from components.adapters.mlflow_store import CHALLENGER, CHAMPION, Version
from components.contracts import Evaluated, Prepared, Registered, Task, Trained
from components.params import TaskParams

SCORE, TEST_SPLIT = "score", "test_split"


def register(
    task: Task[Any], params: TaskParams, prepared: Prepared, trained: Trained, evaluated: Evaluated, out: Path
) -> Registered:
    """Register the model and write which version it became to the file `out`."""
    name = params.register_.name
    tags = {
        SCORE: repr(evaluated.metrics[task.score]),
        "score_metric": f"test/{task.score}",
        TEST_SPLIT: prepared.manifest.splits["test"].sha256,
    }
    champion = mlflow_store.version_at(name, CHAMPION)
    version = mlflow_store.register(trained.run_id, name, trained.folder, task.served(prepared.manifest), tags)
    mlflow_store.set_alias(version, CHALLENGER)
    better, reason = _better(version, champion, task.better)
    if better:
        mlflow_store.set_alias(version, CHAMPION)
    aliases = (CHALLENGER, CHAMPION) if better else (CHALLENGER,)
    note = prepared.manifest.note
    mlflow_store.describe(version, "\n\n".join(filter(None, [reason, note])))
    registered = Registered(name, version.version, aliases, reason)
    files.write_json(out, {**vars(registered), "run_id": trained.run_id, "note": note})
    return registered


def _better(new: Version, champion: Version | None, better: Literal["more", "less"]) -> tuple[bool, str]:
    """Return whether the new version replaces the champion, and why."""
    if champion is None:
        return True, "champion: there was none before"
    was = f"champion version {champion.version}"
    if SCORE not in champion.tags or TEST_SPLIT not in champion.tags:
        return False, f"challenger: {was} was registered without a score to compare with"
    if champion.tags[TEST_SPLIT] != new.tags[TEST_SPLIT]:
        return (
            False,
            f"challenger: {was} was evaluated on another test split, so the scores cannot be compared",
        )
    old, score, metric = float(champion.tags[SCORE]), float(new.tags[SCORE]), new.tags["score_metric"]
    if score > old if better == "more" else score < old:
        return True, f"champion: {metric} {score:.4f} is better than {old:.4f} of {was}"
    return False, f"challenger: {metric} {score:.4f} is not better than {old:.4f} of {was}"
