"""Cleans up after dead processes: ends their orphans, and marks their MLflow and flow runs as interrupted."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from components import models
from components.adapters import mlflow_runs
from components.errors import PedigreeError
from components.jobs import job
from components.runtime import presence
from components.training import model_files
from pipelines import accelerator, runs

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

log = logging.getLogger("pedigree.crashed")

GRACE = timedelta(seconds=45)
"""How long a restarted flow run may be pending or running before its process owns the folder."""


def clean_up(root: Path) -> None:
    """End MLflow runs and flow runs whose processes are gone; reschedule flows that have retries left.

    Needs a connection to the Prefect server and MLflow's store. What fails is left to the next call.
    """
    _try(root, _end_processes, accelerator.free_dead, _end_runs, lambda root: runs.settle_all(root, _settle))


def clean_up_own_server(root: Path) -> None:
    """Do as `clean_up` does; also reschedule flow runs without a record, as all runs on our own server are ours."""
    clean_up(root)
    _try(root, _restart_unrecorded)


def _try(root: Path, *work: Callable[[Path], object]) -> None:
    for what in work:
        try:
            what(root)
        except Exception as error:  # such as a server that is unreachable or restarting
            log.warning("could not check for interrupted flow runs (%s)", error)


def _end_processes(root: Path) -> None:
    if ended := presence.end_orphans(root):
        log.info("ended %d orphaned processes", len(ended))


def _end_runs(root: Path) -> None:
    for sentence in job.end_orphans(root / "build"):
        log.info(sentence)


def _settle(folder: Path, record: runs.Record) -> runs.Record:
    """Mark interrupted flow runs as crashed; reschedule one of a deployment while it has retries left.

    Return the record with what is left to do.
    """
    for flow_run in record.earlier:  # previous owners of the folder
        _mark(flow_run, record)
    record = record.model_copy(update={"earlier": []})
    if not runs.is_interrupted(folder, record):
        return record
    state = _mark(record.flow_run, record)
    if state is None:
        return record
    with suppress(PedigreeError):  # it has no model yet
        mlflow_runs.end_interrupted(model_files.read_run(folder / "model"))
    return record.model_copy(update={"settled": state != SCHEDULED})


SCHEDULED = "SCHEDULED"


def _mark(flow_run_id: str, record: runs.Record) -> str | None:
    """Mark a flow run whose process is gone; return its state, or None if that is not known yet."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.objects import State, StateType
    from prefect.exceptions import ObjectNotFound
    from prefect.states import AwaitingRetry, Cancelled, Crashed

    with get_client(sync_client=True) as client:
        try:
            flow_run = client.read_flow_run(UUID(flow_run_id))
        except ObjectNotFound:  # it belongs to another server
            return None
        if flow_run.state is None:
            return None
        state, current = flow_run.state.type, flow_run_id == record.flow_run
        if state in {StateType.RUNNING, StateType.PENDING, StateType.CANCELLING}:
            since = datetime.now(UTC) - flow_run.state.timestamp
            if flow_run.state.timestamp > record.started and (not current or abs(since) < GRACE):
                return None  # a restarted process reports its state before it owns the folder
            log.info("the flow run %s of %s was interrupted: marking it", flow_run.name, record.model)
            message = "Its process ended without reporting a result."
            ended: State[Any] = (Cancelled if state == StateType.CANCELLING else Crashed)(message=message)
            client.set_flow_run_state(flow_run.id, ended, force=True)
            its_own = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
            for task_run in client.read_task_runs(flow_run_filter=its_own):
                if task_run.state and task_run.state.type == StateType.RUNNING:
                    client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
            state = ended.type
        if current and state == StateType.CRASHED and flow_run.deployment_id and record.attempts <= record.retries:
            log.info(
                "the flow run %s of %s is scheduled for attempt %d, by a running `pedigree up` or worker or else "
                "the next one; `prefect flow-run cancel %s` cancels it",
                flow_run.name,
                record.model,
                record.attempts + 1,
                flow_run.id,
            )
            again: State[Any] = AwaitingRetry(
                scheduled_time=datetime.now(UTC), message="Resumes where it was interrupted."
            )
            client.set_flow_run_state(flow_run.id, again, force=True)
            return SCHEDULED
    return str(state.value)


YOUNG = timedelta(minutes=10)
"""A flow run without a record is restarted only within this time after its last change of state."""


def _restart_unrecorded(root: Path) -> None:
    """Reschedule flow runs that ended before they had a record, as when the serving process dies.

    A run that stays pending has no process: a process announces itself before it does anything else.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.states import AwaitingRetry

    unstarted = filters.FlowRunFilterStateType(any_=[StateType.CRASHED, StateType.PENDING])
    with get_client(sync_client=True) as client:
        for flow_run in client.read_flow_runs(
            flow_run_filter=filters.FlowRunFilter(state=filters.FlowRunFilterState(type=unstarted)),
            deployment_filter=filters.DeploymentFilter(name=filters.DeploymentFilterName(any_=["local"])),
        ):
            now = datetime.now(UTC)
            if flow_run.state is None or runs.knows(root, str(flow_run.id)):
                continue
            since = now - flow_run.state.timestamp
            if since > YOUNG or (flow_run.state.type == StateType.PENDING and since < GRACE):
                continue
            name = client.read_flow(flow_run.flow_id).name
            if flow_run.run_count <= _retries(root, name, flow_run.parameters):
                log.info("the flow run %s of %s died on start: restarting it", flow_run.name, name)
                again: State[Any] = AwaitingRetry(scheduled_time=now, message="Restarts.")
                client.set_flow_run_state(flow_run.id, again, force=True)


def _retries(root: Path, name: str, given: dict[str, Any]) -> int:
    try:
        usual = models.load(root, name).params
    except PedigreeError:  # the model is no longer in params.yaml, or is invalid
        return 0
    return int((given.get("train") or {}).get("retries", usual.train.retries))
