"""Crashed means crashed: what processes have left that are gone is ended as what it is."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from components import files, processes
from components.adapters import ray_train
from components.processes import Process
from components.stages import job
from pipelines import runs

log = logging.getLogger("pedigree.crashed")

GRACE = timedelta(seconds=30)
"""That a flow run may have its state without a process that has its folder."""
CHILDREN = Path("build", "up.json")
"""Which processes `pedigree up` has started."""


def tidy(root: Path) -> None:
    """End MLflow runs and flow runs of processes that are gone; where params say so, flows are scheduled again.

    Prefect's server and MLflow's store have to be connected.
    """
    if ended := ray_train.end_left(root):
        log.info("ended %d processes of Ray that outlived their driver", len(ended))
    for sentence in job.end_left(root / "build"):
        log.info(sentence)
    runs.tend(root, _settle)


def _settle(record: runs.Record) -> bool:
    """Mark a flow run crashed that nobody works at; one of a deployment goes on by itself, as often as it may.

    Return whether that is all.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.objects import State, StateType
    from prefect.exceptions import ObjectNotFound
    from prefect.states import AwaitingRetry, Crashed

    with get_client(sync_client=True) as client:
        try:
            flow_run = client.read_flow_run(UUID(record.flow_run))
        except ObjectNotFound:  # of another server
            return False
        if flow_run.state is None:
            return False
        state = flow_run.state.type
        if state in {StateType.RUNNING, StateType.PENDING, StateType.CANCELLING}:
            # A process that has just been started says so before it has its folder. (A clock may have been set.)
            if abs(datetime.now(UTC) - flow_run.state.timestamp) < GRACE:
                return False
            log.info("the flow run %s of %s was cut off: it is marked as crashed", flow_run.name, record.task)
            message = "Its process ended without a word."
            client.set_flow_run_state(flow_run.id, Crashed(message=message), force=True)
            its_own = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
            for task_run in client.read_task_runs(flow_run_filter=its_own):
                if task_run.state and task_run.state.type == StateType.RUNNING:
                    client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
            state = StateType.CRASHED
        if state == StateType.CRASHED and flow_run.deployment_id and record.attempts <= record.retries:
            log.info("the flow run %s of %s goes on, attempt %d", flow_run.name, record.task, record.attempts + 1)
            again: State[Any] = AwaitingRetry(
                scheduled_time=datetime.now(UTC), message="It goes on where it was cut off."
            )
            client.set_flow_run_state(flow_run.id, again, force=True)
            return False
    return state != StateType.SCHEDULED


def end_children(root: Path) -> None:
    """End what an earlier `pedigree up` has left that was killed and could not do so itself."""
    family = _read(root)
    if family and family[0].gone:
        ended = processes.end(family[1:])
        if ended:
            log.info("ended %d processes that an earlier `pedigree up` had left", len(ended))


def note_children(root: Path, family: set[Process]) -> None:
    """Keep which processes are ours, for the next start to end them if we cannot."""
    rest = sorted(family, key=lambda process: process.pid)
    files.write_json(root / CHILDREN, [process.model_dump() for process in (processes.this(), *rest)])


def _read(root: Path) -> list[Process]:
    try:
        return [Process.model_validate(each) for each in json.loads((root / CHILDREN).read_text())]
    except (OSError, ValueError):
        return []
