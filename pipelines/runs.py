"""The folders of flow runs: whose each is, and which of those that were cut off goes on.

A flow's folder outlives its processes. Whoever asks for the same again - Prefect's retry, or a person who repeats
the command - goes on in it: what a stage has finished there is not made again.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components import files, locks
from components.contracts import Task
from components.params import TaskParams
from components.stages import job
from components.stages.origin import source_now
from components.trust import lineage

RUNS = Path("build", "runs")
_RECORD = "run.json"


class Record(BaseModel):
    """run.json in a flow run's folder."""

    model_config = ConfigDict(frozen=True)

    task: str
    key: str = Field(description="Equal for flows of the same task, parameters and code")
    flow_run: str = Field(description="Id of the flow run that has the folder, or had it last")
    attempts: int = Field(description="How often the flow was begun or taken up")
    retries: int = Field(description="How often it is taken up by itself after its process died")
    done: bool
    settled: bool = Field(default=False, description="It was cut off, and Prefect has been told")


def key(task: Task[Any], values: TaskParams) -> str:
    """Return what two flows share that come to the same: task, parameters and code."""
    return lineage.digest([task.name, job.essential(values), source_now()])


@contextmanager
def folder(root: Path, task: Task[Any], values: TaskParams, flow_run: str) -> Iterator[Path]:
    """Give the folder that a flow run works in while the block runs: its own, or that of the same flow cut off.

    Nobody else has it meanwhile. When the block ends well the flow is over, and else it can go on.
    """
    its_key, runs = key(task, values), root / RUNS
    with ExitStack() as stack:
        with locks.alone(runs / ".lock", "another flow's beginning"):
            place = _cut_off(runs, its_key, flow_run) or runs / flow_run
            stack.enter_context(locks.alone(_lock(place), f"the flow of {task.name} in {place.name}"))
        before = _read(place)
        record = Record(
            task=task.name,
            key=its_key,
            flow_run=flow_run,
            attempts=before.attempts + 1 if before and before.flow_run == flow_run else 1,
            retries=values.train.retries,
            done=False,
        )
        _write(place, record)
        yield place
        _write(place, record.model_copy(update={"done": True}))


def _cut_off(runs: Path, its_key: str, flow_run: str) -> Path | None:
    """Return the latest folder of a flow with this key that is not over and that no process has."""
    found = [
        place
        for place, record in _all(runs)
        if record.key == its_key and not record.done and not locks.held(_lock(place))
    ]
    own = [place for place in found if (record := _read(place)) and record.flow_run == flow_run]
    return max(own or found, key=lambda place: (place / _RECORD).stat().st_mtime_ns, default=None)


def tend(root: Path, settle: Callable[[Record], bool]) -> None:
    """Call `settle` on each flow that was cut off, until it says that no more is to do; nobody has it meanwhile."""
    for place, known in _all(root / RUNS):
        if known.done or known.settled:
            continue
        with locks.if_free(_lock(place)) as free:
            record = _read(place)
            if free and record and not record.done and settle(record):
                _write(place, record.model_copy(update={"settled": True}))


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
