"""The flow of every task: prepare, train, evaluate, register.

`vision` and its like are attributes of this module, one flow for each section of params.yaml, so that
`prefect.yaml` and a worker find them as `pipelines/flow.py:vision`.
"""

import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.runtime import flow_run

from components import params, tasks
from components.adapters import mlflow_store
from components.contracts import Evaluated, Registered, Task, Trained
from components.params import TaskParams, with_defaults
from pipelines import steps

# Prefect makes a model of a flow's parameters, and pydantic has a method of the name of our fourth section.
warnings.filterwarnings("ignore", message='Field name "register" .* shadows an attribute', category=UserWarning)

Result = tuple[Trained, Evaluated, Registered]


def chain(task: Task[Any], values: TaskParams, root: Path, run_id: str, name: str) -> Result:
    """Take a task's raw data to a registered model, in a folder that is this run's alone."""
    folder = root / "build" / "runs" / run_id
    prepared = steps.prepare(task, values, root, folder / "prepared")
    trained = steps.train(task, values, prepared, folder / "model", name)
    evaluated = steps.evaluate(task, values, prepared, trained, folder / "evaluation")
    registered = steps.register(task, values, prepared, trained, evaluated, folder / "registered.json")
    return trained, evaluated, registered


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
        mlflow_store.connect(root)
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
