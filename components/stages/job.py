"""A training until it is over: its folder, which outlives its processes, and what makes another one the same."""

import json
import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from components import files, locks
from components.adapters import mlflow_runs
from components.contracts import Event, Manifest, Task
from components.params import TaskParams, flat
from components.stages.origin import Beginning
from components.trust import lineage

log = logging.getLogger("pedigree.train")

UNFINISHED = "training"
"""Folder beside a model's, with one folder for each training that is not over."""
_HOW = {"workers", "checkpoint_seconds", "retries"}
"""Parameters that change how something is run and not what it makes."""


class Record(BaseModel):
    """job-<id>.json: the id names the job's MLflow run, and outlives damage to the rest."""

    model_config = ConfigDict(frozen=True)

    task: str
    beginning: Beginning = Field(description="What was known when it began")
    machines: list[str] = Field(description="Devices and numbers of workers that it was trained on, in their order")


@dataclass
class Job:
    """A training that is not over."""

    folder: Path
    id: str
    """Its MLflow run carries it."""
    record: Record

    def begun(self, event: Event) -> None:
        """Keep on what a training goes on, and say so where that is not what it began on."""
        machine = f"{event['device']}, {event['world']} worker(s)"
        resumed, before = event["resumed"], self.record.machines
        if resumed:
            log.info("%s goes on after epoch %d, update %d", self.record.task, resumed["epoch"], resumed["update"])
        if resumed and before and before[-1] != machine:
            log.warning(
                "it was trained on %s so far and goes on on %s: the bits of its weights will differ from those of "
                "a training that was not interrupted",
                before[-1],
                machine,
            )
        machines = [*before, machine] if resumed and before[-1:] != [machine] else before if resumed else [machine]
        self.record = self.record.model_copy(update={"machines": machines})
        self._write()

    def _write(self) -> None:
        told = self.record.model_dump(mode="json")
        files.write_json(self.folder / f"job-{self.id}.json", {"sha256": lineage.digest(told), "record": told})


def essential(params: TaskParams) -> dict[str, Any]:
    """Return the parameters, by section, without those that change how something is run and not what it makes."""
    sections = params.model_dump(by_alias=True, mode="json")
    return {
        section: {name: value for name, value in values.items() if name not in _HOW}
        for section, values in sections.items()
    }


def key(task: Task[Any], params: TaskParams, manifest: Manifest, code: str) -> str:
    """Return what two trainings share that make the same weights: task, parameters, data and code."""
    data = manifest.model_dump(mode="json", exclude={"refused"})
    train = essential(params)["train"]
    named = {name: files.sha256(file) for name, file in named_files(flat(train), Path.cwd())}
    return lineage.digest([task.name, train, data, code, named])


def named_files(values: Mapping[str, Any], root: Path) -> Iterator[tuple[str, Path]]:
    """Give the parameters that name a file, such as a checkpoint, and that file."""
    for name, value in values.items():
        with suppress(OSError):  # of a text that is too long for a name
            if isinstance(value, str) and value and (root / value).is_file():
                yield name, root / value


@contextmanager
def taken_up(out: Path, its_key: str, task: str, beginning: Beginning) -> Iterator[Job]:
    """Give the unfinished training of this key beside the folder `out`, or a new one; no other process has it.

    It is gone when the block ends well, and else stays for the next time.
    """
    folder = out.with_name(UNFINISHED) / its_key[:16]
    with locks.alone(folder.with_name(f"{folder.name}.lock"), f"the same training of {task}"):
        its_id = _id(folder)
        if its_id is None:
            files.remove(folder)
            folder.mkdir(parents=True)
            its_id = uuid.uuid4().hex
        # Of the same key, so that what is known now was so at its beginning, but for the time.
        record = _read(folder) or Record(task=task, beginning=beginning, machines=[])
        job = Job(folder, its_id, record)
        job._write()
        yield job
        files.remove(folder)


def _id(folder: Path) -> str | None:
    file = next(folder.glob("job-*.json"), None)
    return file.stem.removeprefix("job-") if file else None


def _read(folder: Path) -> Record | None:
    """Return what is known of the job, if it is as it was written."""
    try:
        told = json.loads((folder / f"job-{_id(folder)}.json").read_bytes())
        return Record.model_validate(told["record"]) if told["sha256"] == lineage.digest(told["record"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end_left(build: Path) -> list[str]:
    """End the MLflow runs of trainings below `build` whose processes are gone; return a sentence for each."""
    said: list[str] = []
    own, of_flows = (build.glob(f"{models}/{UNFINISHED}/*/job-*.json") for models in ("*", "runs/*"))
    for file in sorted([*own, *of_flows]):
        folder = file.parent
        with locks.if_free(folder.with_name(f"{folder.name}.lock")) as free:
            record, its_id = _read(folder), _id(folder)
            if free and record and its_id and mlflow_runs.end_left(record.task, its_id):
                said.append(f"a training of {record.task} was cut off: its MLflow run is marked as killed")
    return said
