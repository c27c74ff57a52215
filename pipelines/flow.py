"""The flow of every task: prepare, train, evaluate, register.

`vision` and its like are attributes of this module, one flow for each section of params.yaml, so that
`prefect.yaml` and a worker find them as `pipelines/flow.py:vision`.
"""

import inspect
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.runtime import flow_run

from components import params, tasks
from components.adapters import mlflow_runs, mlflow_store
from components.contracts import Evaluated, Prepared, Registered, Task, Trained
from components.params import TaskParams, with_defaults
from components.stages import train as train_stage
from components.stages.origin import Origin
from pipelines import crashed, runs, steps

# Prefect makes a model of a flow's parameters, and pydantic has a method of the name of our fourth section.
warnings.filterwarnings("ignore", message='Field name "register" .* shadows an attribute', category=UserWarning)

log = logging.getLogger("pedigree.flow")


@dataclass(frozen=True)
class Result:
    """What the four stages left, and how long each took."""

    prepared: Prepared
    trained: Trained
    evaluated: Evaluated
    registered: Registered
    seconds: dict[str, float]


def chain(task: Task[Any], values: TaskParams, root: Path, run_id: str, name: str) -> Result:
    """Take a task's raw data to a registered model, in a folder that is this run's alone."""
    seconds: dict[str, float] = {}
    with mlflow_store.answering(), runs.folder(root, task, values, run_id) as folder:
        train_stage.begin(values, root)
        with _timed(task.name, "prepare", seconds):
            prepared = steps.prepare(task, values, root, folder / "prepared")
        with _timed(task.name, "train", seconds):
            trained = steps.train(task, values, prepared, folder / "model", Origin(root, run_id), name)
        with _timed(task.name, "evaluate", seconds):
            evaluated = steps.evaluate(task, values, prepared, trained, folder / "evaluation")
        with _timed(task.name, "register", seconds):
            registered = steps.register(task, values, prepared, trained, evaluated, folder / "registered.json")
        mlflow_runs.log_metrics(trained.run_id, {f"seconds/{stage}": value for stage, value in seconds.items()})
    return Result(prepared, trained, evaluated, registered, seconds)


@contextmanager
def _timed(name: str, stage: str, seconds: dict[str, float]) -> Iterator[None]:
    log.info("%s %s …", name, stage)
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started
    log.info("%s %s took %.0f s", name, stage, seconds[stage])


def build(name: str, root: Path) -> Flow[..., Result]:
    """Return a task's flow.

    Its parameters are the task's pydantic models, with the values of params.yaml as defaults: Prefect's form
    shows them with their descriptions and bounds, and a caller names only what differs.
    """
    task = tasks.load(name)
    defaults = params.validate(task.params, params.read(root / params.FILE), ("tasks", name))

    def run(**sections: Any) -> Result:
        given = {section: value.model_dump(by_alias=True) for section, value in sections.items()}
        values = task.params.model_validate(given)
        logging.getLogger("pedigree").setLevel(logging.INFO)  # a worker starts this in a process of its own
        runs.announce(root, task, values, str(flow_run.id))
        with mlflow_store.answering():
            mlflow_store.connect(root)
        crashed.tidy(root)  # a worker of a pool has no `pedigree up` that does so
        return chain(task, values, root, str(flow_run.id), params.label(name, values, defaults))

    # Prefect reads a flow's parameters off its signature; each task has its own.
    models = {section: with_defaults(type(value), value) for section, value in params.sections(defaults).items()}
    parameters = [
        inspect.Parameter(section, inspect.Parameter.KEYWORD_ONLY, default=model(), annotation=model)
        for section, model in models.items()
    ]
    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"Prepare, train, evaluate and register {name}."
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return flow(name=name, persist_result=False)(run)


def __getattr__(name: str) -> Flow[..., Result]:
    """Give the flow of the task called `name`."""
    if name.startswith("_") or name not in tasks.names(Path.cwd()):
        raise AttributeError(name)
    return build(name, Path.cwd())
