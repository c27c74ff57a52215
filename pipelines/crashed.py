"""Crashed means crashed: what processes have left that are gone is ended as what it is."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from components import files, params, processes, tasks
from components.adapters import mlflow_runs
from components.errors import PedigreeError
from components.processes import Process
from components.stages import job
from components.training import saved
from pipelines import runs

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

log = logging.getLogger("pedigree.crashed")

GRACE = timedelta(seconds=45)
"""That a flow run that was begun again may have its state without a process that has its folder."""
CHILDREN = Path("build", "up.json")
"""Which processes `pedigree up` has started."""


def tidy(root: Path) -> None:
    """End MLflow runs and flow runs of processes that are gone; where params say so, flows are scheduled again.

    Prefect's server and MLflow's store have to be connected; what cannot be done now is left to the next time.
    """
    _try(root, _end_processes, _end_runs, lambda root: runs.tend(root, _settle))


def tidy_own_server(root: Path) -> None:
    """Do so where the server is this checkout's own, with nobody else's flows: no flow run is forgotten."""
    tidy(root)
    _try(root, _begin_again)


def _try(root: Path, *work: Callable[[Path], None]) -> None:
    for what in work:
        try:
            what(root)
        except Exception as error:  # a server that is away, or is being started again
            log.warning("could not look for what was cut off (%s)", error)


def _end_processes(root: Path) -> None:
    if ended := processes.end_left(root):
        log.info("ended %d processes that outlived those that had started them", len(ended))


def _end_runs(root: Path) -> None:
    for sentence in job.end_left(root / "build"):
        log.info(sentence)


def _settle(place: Path, record: runs.Record) -> runs.Record:
    """Mark flow runs crashed that nobody works at; one of a deployment goes on by itself, as often as it may.

    Return the record with what is left to do.
    """
    for flow_run in record.earlier:  # whose folder another has now
        _mark(flow_run, record)
    record = record.model_copy(update={"earlier": []})
    if not runs.is_left(place, record):
        return record
    state = _mark(record.flow_run, record)
    if state is None:
        return record
    with suppress(PedigreeError):  # it has no model yet
        mlflow_runs.end_cut_off(saved.read_run(place / "model"))
    return record.model_copy(update={"settled": state != SCHEDULED})


SCHEDULED = "SCHEDULED"


def _mark(flow_run_id: str, record: runs.Record) -> str | None:
    """Mark a flow run whose process is gone; return its state, or None where that is not known yet."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.objects import State, StateType
    from prefect.exceptions import ObjectNotFound
    from prefect.states import AwaitingRetry, Cancelled, Crashed

    with get_client(sync_client=True) as client:
        try:
            flow_run = client.read_flow_run(UUID(flow_run_id))
        except ObjectNotFound:  # of another server
            return None
        if flow_run.state is None:
            return None
        state, current = flow_run.state.type, flow_run_id == record.flow_run
        if state in {StateType.RUNNING, StateType.PENDING, StateType.CANCELLING}:
            since = datetime.now(UTC) - flow_run.state.timestamp
            if flow_run.state.timestamp > record.begun and (not current or abs(since) < GRACE):
                return None  # a process that has been started again, which says so before it has its folder
            log.info("the flow run %s of %s was cut off: it is marked as such", flow_run.name, record.task)
            message = "Its process ended without a word."
            ended: State[Any] = (Cancelled if state == StateType.CANCELLING else Crashed)(message=message)
            client.set_flow_run_state(flow_run.id, ended, force=True)
            its_own = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
            for task_run in client.read_task_runs(flow_run_filter=its_own):
                if task_run.state and task_run.state.type == StateType.RUNNING:
                    client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
            state = ended.type
        if current and state == StateType.CRASHED and flow_run.deployment_id and record.attempts <= record.retries:
            log.info("the flow run %s of %s goes on, attempt %d", flow_run.name, record.task, record.attempts + 1)
            again: State[Any] = AwaitingRetry(
                scheduled_time=datetime.now(UTC), message="It goes on where it was cut off."
            )
            client.set_flow_run_state(flow_run.id, again, force=True)
            return SCHEDULED
    return str(state.value)


YOUNG = timedelta(minutes=10)
"""Within which a flow run that died at its very beginning is begun again."""


def _begin_again(root: Path) -> None:
    """Schedule again the flow runs that ended before they had a record, as when the serving process dies.

    One that is pending for long has no process: a process announces itself before it does anything else.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.states import AwaitingRetry

    unbegun = filters.FlowRunFilterStateType(any_=[StateType.CRASHED, StateType.PENDING])
    with get_client(sync_client=True) as client:
        for flow_run in client.read_flow_runs(
            flow_run_filter=filters.FlowRunFilter(state=filters.FlowRunFilterState(type=unbegun)),
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
                log.info("the flow run %s of %s died at its beginning: it begins again", flow_run.name, name)
                again: State[Any] = AwaitingRetry(scheduled_time=now, message="It begins again.")
                client.set_flow_run_state(flow_run.id, again, force=True)


def _retries(root: Path, name: str, given: dict[str, Any]) -> int:
    values = params.validate(tasks.load(name).params, params.read(root / params.FILE), ("tasks", name))
    return int((given.get("train") or {}).get("retries", values.train.retries))


def end_children(root: Path) -> None:
    """End what an earlier `pedigree up` has left that was killed and could not do so itself."""
    family = _read(root)
    if family and family[0].gone:
        grown = {each for process in family[1:] if not process.gone for each in processes.tree(process.pid)}
        ended = processes.end(grown)
        if ended:
            log.info("ended %d processes that an earlier `pedigree up` had left", len(ended))


def note_children(root: Path, family: set[Process]) -> None:
    """Keep which processes are ours, for the next start to end them if we cannot."""
    rest = sorted(family, key=lambda process: process.pid)
    try:
        files.write_json(root / CHILDREN, [process.model_dump() for process in (processes.this(), *rest)])
    except OSError as error:  # a full disk ends no flow that runs
        log.warning("could not note what was started (%s)", error)


def _read(root: Path) -> list[Process]:
    try:
        return [Process.model_validate(each) for each in json.loads((root / CHILDREN).read_text())]
    except (OSError, ValueError):
        return []
