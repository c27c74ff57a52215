"""`pedigree run`: runs flows one after the other in this process, and prints a table of the results."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from components import models
from components.errors import DEBUG, PedigreeError
from components.models import Model
from components.params import Values, nearest
from components.runtime import addresses
from pipelines import output, server

if TYPE_CHECKING:
    from components.stages.summary import Outcome
    from pipelines.flow import Result


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
            model.expect_sources()  # training would find out only after preparation
        return chosen

    def load() -> None:
        from components.adapters import mlflow_store
        from pipelines import flow  # noqa: F401

        with mlflow_store.answering():
            mlflow_store.connect(root)  # the first connection also creates tables

    # The terminal shows only our own lines; Prefect's UI has the rest.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    with server.connected(check, load) as chosen:
        from components.stages import summary

        _leave_errors_to_the_command()

        results: list[tuple[Model, Result]] = []
        try:
            for model in chosen:
                results.append((model, _run_flow(model)))
        finally:  # also of those that finished before one failed
            if results:  # with links to where the pages are now: `pedigree up` may have been started meanwhile
                summary.show([_outcome(*each) for each in results])


def _of_task(values: Values, task: str | None) -> list[str]:
    listed = models.listed(values)
    names = [each.name for each in listed if task in (None, each.task)]
    if not names:
        used = sorted({each.task for each in listed})
        raise PedigreeError(
            f"no model in params.yaml has the task {task}{nearest(str(task), used)}: use one of {', '.join(used)}"
        )
    return names


def _run_flow(model: Model) -> "Result":
    from pipelines import flow

    result: Result = flow.build(model.name, model.root)(**model.params.model_dump(by_alias=True))
    return result


def _outcome(model: Model, result: "Result") -> "Outcome":
    from components.stages import summary

    return summary.outcome(
        model, result.prepared, result.trained, result.evaluated, result.registered, result.seconds
    )


def _leave_errors_to_the_command() -> None:
    """Keep Prefect's lines about a failed run off the terminal, as the command ends with the error itself.

    Prefect says it three times: of the task, of its state, and of the flow. Its pages show all of them.
    """
    if not os.environ.get(DEBUG):
        for handler in (*logging.getLogger("prefect").handlers, *logging.getLogger().handlers):
            handler.addFilter(lambda record: record.levelno < logging.ERROR or record.name not in output.RUNS)
