"""Three runs in MLflow's store as stages log them, without their training."""

from dataclasses import dataclass
from pathlib import Path

from components.adapters import mlflow_pages, mlflow_runs
from components.contracts import Manifest, Part

USER, COMMAND, COMMIT = "Ann Author <ann@example.org>", "pedigree run digits", "0123456789abcdef" * 2 + "01234567"
UPDATES = range(50, 1050, 50)
"""At which the runs are validated: 20 times, in 4 epochs."""
CLASSES = ("Coat", "Shirt", "C++ / 1")


@dataclass(frozen=True)
class Three:
    """Three runs of one experiment, and the accuracy that each has."""

    experiment_id: str
    ids: tuple[str, ...]
    scores: tuple[float, ...]


def manifest() -> Manifest:
    """A manifest of data that are not there."""
    splits = {name: Part(samples=10, sha256=name[0] * 64) for name in ("train", "val", "test")}
    return Manifest(task="digits", splits=splits, rejected=[], facts={}, note="Synthetic data.")


def make_three(experiment: str, folder: Path) -> Three:
    """Log three runs with 20 validations each, their scores and a table of their classes."""
    scores = (0.75, 0.9375, 0.5)
    ids = tuple(_make(experiment, folder, number, score) for number, score in enumerate(scores))
    return Three(_experiment(ids[0]), ids, scores)


def _experiment(run_id: str) -> str:
    from mlflow import MlflowClient

    return str(MlflowClient().get_run(run_id).info.experiment_id)


def _make(experiment: str, folder: Path, number: int, score: float) -> str:
    params = {"train": {"optimizer": {"lr": 0.001 * 2**number}, "epochs": 4}}
    tags = mlflow_pages.source_tags(USER, COMMAND, COMMIT)
    run_id = mlflow_runs.start_run(f"job {number}", experiment, f"run {number}", params, manifest(), folder, tags)
    with mlflow_runs.recording(run_id, seconds=0.05) as recorder:
        for update in UPDATES:
            recorder.log({"val/loss": 10 / update + number, "val/accuracy": score * update / 1000}, update)
            if update % 250 == 0:  # an epoch ends at an update that is validated, too
                recorder.log({"train/loss": 9 / update + number, "train/epoch": update / 250}, update)
    mlflow_runs.log_metrics(run_id, {"seconds/train": 12.0 + number})
    of_classes = {f"{name}/{group}": score / 2 for name in ("precision", "recall") for group in CLASSES}
    for _ in range(2):  # as an evaluation that is repeated
        metrics = {"accuracy": score, "loss": 0.5, **of_classes, "accuracy_by_speaker/ann": 0.25}
        mlflow_runs.log_evaluation(run_id, metrics, _evaluation(folder), manifest(), folder)
        mlflow_pages.log_score(run_id, "accuracy", score)
    reason = "challenger: not better than version 1"
    text = mlflow_pages.description(mlflow_pages.score_text("accuracy", score), reason, manifest().note)
    mlflow_runs.describe_run(run_id, text)
    return run_id


def _evaluation(folder: Path) -> Path:
    written = folder / "build" / "three"
    written.mkdir(parents=True, exist_ok=True)
    (written / "metrics.json").write_text("{}")
    return written
