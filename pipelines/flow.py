"""The flow of every model: prepare, train, evaluate, register.

Each model in params.yaml has its flow as an attribute of this module, so that `prefect.yaml` and a worker find the
flow of xrays-deep as `pipelines/flow.py:model_xrays_deep`.
"""

import inspect
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from components import models, params
from components.adapters import mlflow_runs, mlflow_store
from components.contracts import Evaluated, Prepared, Registered, Trained
from components.errors import DEBUG, PedigreeError, sentence
from components.models import Model
from components.params import with_defaults
from components.runtime import addresses, surroundings
from pipelines import crashed, output, runs, steps
from pipelines.prefect_yaml import attribute
from pipelines.starts import Start

# Prefect builds a pydantic model from a flow's parameters, and `register` is also a method of pydantic's.
warnings.filterwarnings("ignore", message='Field name "register" .* shadows an attribute', category=UserWarning)

log = logging.getLogger("pedigree.flow")


def _shortened(record: logging.LogRecord) -> bool:
    """Replace the traceback of an error that is told in a sentence by the sentence."""
    text = sentence(record.exc_info[1]) if record.exc_info and record.exc_info[1] else None
    if text is not None and not os.environ.get(DEBUG):
        record.msg, record.args, record.exc_info = text, (), None
    return True


for _logger in output.RUNS:  # Prefect logs a failure three times with a traceback
    logging.getLogger(_logger).addFilter(_shortened)


@dataclass(frozen=True)
class Result:
    """The results of the four stages, and how long each took."""

    prepared: Prepared
    trained: Trained
    evaluated: Evaluated
    registered: Registered
    seconds: dict[str, float]


def chain(model: Model, run_id: str, start: Start) -> Result:
    """Run the four stages, from raw data to a registered version, in a folder of this run's own."""
    seconds: dict[str, float] = {}
    with mlflow_store.answering(), runs.folder(model, run_id) as folder:
        with _timed(model.name, "prepare", seconds):
            prepared = steps.prepare(model, folder / "prepared", start.raw)
            runs.note_prepared(model.root, folder, run_id, prepared.manifest.raw)
        with _timed(model.name, "train", seconds):
            trained = steps.train(model, prepared, folder / "model", run_id, start.label)
        with _timed(model.name, "evaluate", seconds):
            evaluated = steps.evaluate(model, prepared, trained, folder / "evaluation")
        with _timed(model.name, "register", seconds):
            registered = steps.register(model, prepared, trained, evaluated, folder / "registered.json")
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
    """Return a model's flow.

    Its parameters are the task's pydantic models, with the values in params.yaml as defaults. Prefect's form
    shows their descriptions and bounds, and a caller gives only what differs. While Prefect loads the flow for
    another attempt of a flow run, the defaults are what that flow run was started with.

    Raises:
        PedigreeError: params.yaml has no such model, or it is invalid; or the code does not accept the parameters
            that the flow run was started with.
    """
    before = runs.started_with(root, flow_run.id)
    usual = before.load(root) if before else models.load(root, name)
    defaults = usual.params

    def run(**sections: Any) -> Result:
        surroundings.settle()
        output.keep_writable()
        addresses.expect_valid_environment()
        given = {section: value.model_dump(by_alias=True) for section, value in sections.items()}
        model = replace(usual, params=usual.task.params.model_validate(given))
        logging.getLogger("pedigree").setLevel(logging.INFO)  # a worker runs this in a new process
        addresses.mlflow(root)  # a wrong port in the environment would fail the flow at its last step
        label = before.label if before else params.label(name, model.params, defaults)
        start = runs.announce(model, str(flow_run.id), label)
        _explain(root, before)
        with mlflow_store.answering():
            mlflow_store.connect(root)
        crashed.clean_up(root)  # a work pool has no `pedigree up` to do it
        return chain(model, str(flow_run.id), start)

    # Prefect reads a flow's parameters from its signature, which differs from task to task.
    forms = {section: with_defaults(type(value), value) for section, value in params.sections(defaults).items()}
    parameters = [
        inspect.Parameter(section, inspect.Parameter.KEYWORD_ONLY, default=form(), annotation=form)
        for section, form in forms.items()
    ]
    run.__name__ = run.__qualname__ = attribute(name)  # a deployment's entrypoint uses this name
    run.__doc__ = f"Prepare, train, evaluate and register {name}."
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return flow(name=name, persist_result=False)(run)


def _explain(root: Path, before: Start | None) -> None:
    """Log how another attempt of a flow run differs from a new flow run."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    if before:
        for sentence in before.changes(root, context.flow_run.parameters):
            log.info(sentence)
    elif context.flow_run.run_count > 1:
        log.info(
            "what this flow run was started with is not stored here: it takes from %s what it was not given",
            params.FILE,
        )


def __getattr__(name: str) -> Flow[..., Result]:
    """Return the flow of the model whose attribute prefect.yaml names."""
    if not name.startswith("_"):
        root = Path.cwd()
        try:
            before = runs.started_with(root, flow_run.id)
            for model in [before.model] if before else models.names(root):
                if attribute(model) == name:
                    return build(model, root)
        except PedigreeError as problem:
            if not flow_run.id:
                raise
            return _failing(name, problem)
    raise AttributeError(name)


def _failing(name: str, problem: PedigreeError) -> Flow[..., Result]:
    """Return a flow that fails with a sentence, which Prefect then shows; it crashes if a flow cannot be loaded."""

    def run(**sections: Any) -> Result:
        raise problem

    stages = [inspect.Parameter(stage, inspect.Parameter.KEYWORD_ONLY, default=None) for stage in models.STAGES]
    run.__signature__ = inspect.Signature(stages)  # type: ignore[attr-defined]
    return flow(name=name, persist_result=False)(run)
