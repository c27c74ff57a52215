"""The folders of flow runs: which run each belongs to, and which interrupted one to resume.

A flow's folder outlives its processes. A retry by Prefect, or the same command run again, resumes in it and repeats
no finished stage.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components import models, params
from components.jobs import job
from components.models import Model
from components.runtime import files, locks, presence, processes
from components.runtime.processes import Process
from components.trust import imports, lineage
from pipelines.starts import Start

RUNS = Path(models.BUILD, models.RUNS)
RECORD = "run.json"


class Record(BaseModel):
    """run.json in a flow run's folder."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(description="Name of the model")
    key: str = Field(description="Equal for flows with the same model, parameters and training code")
    code: str = Field(default="", description="Hash of the source of components/ that produced the results")
    training_code: str = Field(default="", description="Hash of the training code")
    sources: list[str] = Field(default=[], description="Files, folders and versions that its parameters name")
    flow_run: str = Field(description="Id of the flow run that owns the folder, or owned it last")
    earlier: list[str] = Field(description="Ids of previous owners whose state in Prefect may be stale")
    process: Process
    started: datetime
    attempts: int = Field(description="How often the flow was started or resumed; 0 until it owns a folder")
    begins: bool = Field(
        default=False, description="Its process has announced itself and does not own the folder yet"
    )
    retries: int = Field(description="How often it is resumed automatically after its process died")
    done: bool
    settled: bool = Field(default=False, description="It was interrupted, and Prefect has been notified")
    starts: dict[str, Start] = Field(default={}, description="What each of its flow runs was started with")


def key(model: Model) -> str:
    """Return a key that is equal for flows with the same model, parameters and training code."""
    code = imports.of_training(model.task).sha256
    return lineage.digest([model.name, model.task.name, model.data, job.essential(model.params), code])


def announce(model: Model, flow_run: str, label: str = "") -> Start:
    """Record a flow run's process before the run does anything else, so that its death can be detected.

    The first attempt also records what the flow run was started with, which is returned.
    """
    start = started_with(model.root, flow_run) or Start.of(model, label)
    folder = model.root / RUNS / flow_run
    with beginning(model.root):
        before = _read(folder)
        if before is None or before.flow_run == flow_run:
            attempts = before.attempts if before else 0
            earlier = before.earlier if before else []
            record = _record(model, flow_run, earlier, attempts, begins=True)
            starts = (before.starts if before else {}) | {flow_run: start}
            code = before.code if before else record.code
            _write(folder, record.model_copy(update={"code": code, "starts": starts}))
    return start


def started_with(root: Path, flow_run: str | None) -> Start | None:
    """Return what a flow run was started with, or None at its first attempt, or if its folder was removed."""
    found = (record.starts.get(flow_run) for _, record in _all(root / RUNS)) if flow_run else ()
    return next((start for start in found if start), None)


def note_prepared(root: Path, folder: Path, flow_run: str, raw: str) -> None:
    """Record the hash of the raw data that a flow run has prepared in its folder, which it holds."""
    with beginning(root):  # else a clean-up might write the record that it has read before
        record = _read(folder)
        if record and (start := record.starts.get(flow_run)):
            starts = record.starts | {flow_run: start.model_copy(update={"raw": raw})}
            _write(folder, record.model_copy(update={"starts": starts}))


def _record(model: Model, flow_run: str, earlier: list[str], attempts: int, begins: bool = False) -> Record:
    return Record(
        model=model.name,
        key=key(model),
        code=imports.source_now(),
        training_code=imports.of_training(model.task).sha256,
        sources=list(params.sources(model.params).values()),
        flow_run=flow_run,
        earlier=earlier,
        process=presence.announce(model.root),
        started=datetime.now(UTC),
        attempts=attempts,
        begins=begins,
        retries=model.params.train.retries,
        done=False,
    )


@contextmanager
def folder(model: Model, flow_run: str) -> Iterator[Path]:
    """Hold the folder that a flow run works in: its own, or that of the interrupted run that it resumes.

    When the block succeeds the flow is done; otherwise it can be resumed.
    """
    its_key, runs = key(model), model.root / RUNS
    own = runs / flow_run
    with ExitStack() as stack:
        with beginning(model.root):
            chosen = _interrupted(runs, its_key, flow_run) or own
            lock = locks.alone(_lock(chosen), f"the flow of {model.name} in {chosen.name}")
            busy = locks.held(_lock(chosen))
            if not busy:
                stack.enter_context(lock)
        if busy:  # a user has resumed the flow that Prefect retries: wait without blocking the start of others
            stack.enter_context(lock)
        before = _read(chosen)
        mine = before is not None and before.flow_run == flow_run
        earlier = [] if before is None else [*before.earlier, before.flow_run]
        attempts = before.attempts + 1 if before and mine else 1
        announced = _read(own) if chosen != own else None
        starts = {**(before.starts if before else {}), **(announced.starts if announced else {})}
        record = _record(model, flow_run, [each for each in earlier if each != flow_run], attempts)
        record = record.model_copy(update={"starts": starts})
        if before and before.code != record.code:  # other code produced them
            remove_results(chosen)
            files.remove(chosen / "prepared")
        _write(chosen, record)
        if announced and not announced.attempts:
            files.remove(own)
        yield chosen
        with beginning(model.root):
            record = _read(chosen) or record
            _write(chosen, record.model_copy(update={"done": True}))


def remove_results(folder: Path) -> None:
    """Remove everything that a flow derived from its trained model."""
    for name in ("evaluation", "registered.json"):
        files.remove(folder / name)


def beginning(root: Path) -> AbstractContextManager[None]:
    """Hold the lock under which flows start, one at a time, and interrupted ones are cleaned up."""
    return locks.alone(root / RUNS / ".lock", "the start of another flow")


def _interrupted(runs: Path, its_key: str, flow_run: str) -> Path | None:
    """Return the latest folder of an interrupted flow with this key."""
    resumable = [
        (folder, record)
        for folder, record in _all(runs)
        if record.key == its_key and is_interrupted(folder, record)
    ]
    own = [(folder, record) for folder, record in resumable if record.flow_run == flow_run and record.attempts]
    others = [(folder, record) for folder, record in resumable if record.flow_run != flow_run]
    return max(own or others, key=lambda each: each[1].started, default=(None, None))[0]


def is_interrupted(folder: Path, record: Record) -> bool:
    """Return whether a flow was interrupted: it is not done, and no process works on it."""
    # A process whose flow raised may still be alive: it releases the folder before it notifies Prefect.
    return (
        not record.done
        and (not _lives(folder, record) or (record.process == processes.this() and not record.begins))
        and not locks.held(_lock(folder))
    )


def _lives(folder: Path, record: Record) -> bool:
    return presence.lives(folder.parents[len(RUNS.parts)], record.process)


def settle_all(root: Path, settle: Callable[[Path, Record], Record]) -> None:
    """Call `settle` on each flow whose state in Prefect may be stale, and save the record that it returns."""
    for folder, seen in _all(root / RUNS):
        if (seen.done or seen.settled) and not seen.earlier:
            continue
        with beginning(root):  # so that no process resumes it meanwhile
            record = _read(folder)
            if record and (record.earlier or is_interrupted(folder, record)):
                settled = settle(folder, record)
                if settled != record:
                    _write(folder, settled)


def knows(root: Path, flow_run: str) -> bool:
    """Return whether a flow run owns, or owned, a folder."""
    return any(flow_run in (record.flow_run, *record.earlier, folder.name) for folder, record in _all(root / RUNS))


@contextmanager
def if_free(root: Path, folder: Path) -> Iterator[tuple[bool, Record | None]]:
    """Hold a flow's folder if no process uses it or is about to; yield whether it is held, and its record."""
    with beginning(root), locks.if_free(_lock(folder)) as free:
        record = _read(folder)
        yield free and (record is None or record.done or not _lives(folder, record)), record


def records(root: Path) -> list[Record]:
    """Return the records of all flow runs."""
    return [record for _, record in _all(root / RUNS)]


def _all(runs: Path) -> list[tuple[Path, Record]]:
    records = [(file.parent, _read(file.parent)) for file in sorted(runs.glob(f"*/{RECORD}"))]
    return [(folder, record) for folder, record in records if record is not None]


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _read(folder: Path) -> Record | None:
    try:
        return Record.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def _write(folder: Path, record: Record) -> None:
    files.write_text(folder / RECORD, record.model_dump_json(indent=2) + "\n")
