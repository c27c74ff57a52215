"""The folders of flow runs: whose each is, and which of those that were cut off goes on.

A flow's folder outlives its processes. Whoever asks for the same again - Prefect's retry, or a person who repeats
the command - goes on in it: what a stage has finished there is not made again.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components import files, locks, processes
from components.contracts import Task
from components.params import TaskParams
from components.processes import Process
from components.stages import job
from components.stages.fit import source_now
from components.trust import lineage

RUNS = Path("build", "runs")
_RECORD = "run.json"


class Record(BaseModel):
    """run.json in a flow run's folder."""

    model_config = ConfigDict(frozen=True)

    task: str
    key: str = Field(description="Equal for flows of the same task, parameters and code")
    flow_run: str = Field(description="Id of the flow run that has the folder, or had it last")
    earlier: list[str] = Field(description="Ids of flow runs that had it before and whose state may not be true")
    process: Process
    begun: datetime
    attempts: int = Field(description="How often the flow was begun or taken up; 0 until it has a folder")
    begins: bool = Field(default=False, description="Its process has not come to the folder yet")
    retries: int = Field(description="How often it is taken up by itself after its process died")
    done: bool
    settled: bool = Field(default=False, description="It was cut off, and Prefect has been told")


def key(task: Task[Any], values: TaskParams) -> str:
    """Return what two flows share that come to the same: task, parameters and code."""
    return lineage.digest([task.name, job.essential(values), source_now()])


def announce(root: Path, task: Task[Any], values: TaskParams, flow_run: str) -> None:
    """Keep which process a flow run is in, before it does anything else: should it die, others know."""
    place = root / RUNS / flow_run
    with beginning(root):
        before = _read(place)
        if before is None or before.flow_run == flow_run:
            attempts = before.attempts if before else 0
            earlier = before.earlier if before else []
            _write(place, _record(task, values, flow_run, earlier, attempts, begins=True))


def _record(
    task: Task[Any], values: TaskParams, flow_run: str, earlier: list[str], attempts: int, begins: bool = False
) -> Record:
    return Record(
        task=task.name,
        key=key(task, values),
        flow_run=flow_run,
        earlier=earlier,
        process=processes.this(),
        begun=datetime.now(UTC),
        attempts=attempts,
        begins=begins,
        retries=values.train.retries,
        done=False,
    )


@contextmanager
def folder(root: Path, task: Task[Any], values: TaskParams, flow_run: str) -> Iterator[Path]:
    """Give the folder that a flow run works in while the block runs: its own, or that of the same flow cut off.

    Nobody else has it meanwhile. When the block ends well the flow is over, and else it can go on.
    """
    its_key, runs = key(task, values), root / RUNS
    own = runs / flow_run
    with ExitStack() as stack:
        with beginning(root):
            place = _cut_off(runs, its_key, flow_run) or own
            announced = _read(own) if place != own else None
            if announced and not announced.attempts:
                files.remove(own)
            alone, busy = (
                locks.alone(_lock(place), f"the flow of {task.name} in {place.name}"),
                locks.held(_lock(place)),
            )
            if not busy:
                stack.enter_context(alone)
        if busy:  # a person has taken up what Prefect retries: others begin meanwhile
            stack.enter_context(alone)
        before = _read(place)
        mine = before is not None and before.flow_run == flow_run
        earlier = [] if before is None else [*before.earlier, before.flow_run]
        attempts = before.attempts + 1 if before and mine else 1
        record = _record(task, values, flow_run, [each for each in earlier if each != flow_run], attempts)
        _write(place, record)
        yield place
        _write(place, record.model_copy(update={"done": True}))


def beginning(root: Path) -> AbstractContextManager[None]:
    """Let one flow begin at a time, or what was cut off be tidied up."""
    return locks.alone(root / RUNS / ".lock", "another flow's beginning")


def _cut_off(runs: Path, its_key: str, flow_run: str) -> Path | None:
    """Return the latest folder of a flow with this key that is not over and that no process has."""
    left = [(place, record) for place, record in _all(runs) if record.key == its_key and is_left(place, record)]
    own = [(place, record) for place, record in left if record.flow_run == flow_run and record.attempts]
    others = [(place, record) for place, record in left if record.flow_run != flow_run]
    return max(own or others, key=lambda each: each[1].begun, default=(None, None))[0]


def is_left(place: Path, record: Record) -> bool:
    """Tell whether a flow was cut off: it is not over, and no process has it."""
    # A process that has raised lets go of its folder before it has told Prefect.
    return (
        not record.done
        and (record.process.gone or (record.process == processes.this() and not record.begins))
        and not locks.held(_lock(place))
    )


def tend(root: Path, settle: Callable[[Path, Record], Record]) -> None:
    """Call `settle` on each flow that has something left to be told to Prefect, and keep what it returns."""
    for place, known in _all(root / RUNS):
        if (known.done or known.settled) and not known.earlier:
            continue
        with beginning(root):  # nobody takes it up meanwhile
            record = _read(place)
            if record and (record.earlier or is_left(place, record)):
                settled = settle(place, record)
                if settled != record:
                    _write(place, settled)


def knows(root: Path, flow_run: str) -> bool:
    """Tell whether a flow run has, or had, a folder."""
    return any(flow_run in (record.flow_run, *record.earlier, place.name) for place, record in _all(root / RUNS))


def _all(runs: Path) -> list[tuple[Path, Record]]:
    found = [(file.parent, _read(file.parent)) for file in sorted(runs.glob(f"*/{_RECORD}"))]
    return [(place, record) for place, record in found if record is not None]


def _lock(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")


def _read(place: Path) -> Record | None:
    try:
        return Record.model_validate_json((place / _RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def _write(place: Path, record: Record) -> None:
    files.write_text(place / _RECORD, record.model_dump_json(indent=2) + "\n")
