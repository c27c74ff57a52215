"""An unfinished training: its folder, which outlives its processes, and the key by which it is resumed."""

import json
import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from components import models
from components.adapters import mlflow_runs
from components.contracts import Event, Manifest
from components.jobs.provenance import Provenance
from components.models import Model
from components.params import TaskParams
from components.runtime import files, locks
from components.trust import lineage
from components.trust.lineage import Source

log = logging.getLogger("pedigree.train")

UNFINISHED = "training"
"""Folder beside a model's folder, with one folder per unfinished training."""
_HOW = {"workers", "checkpoint_seconds", "retries"}
"""Parameters that change how a stage runs but not its result."""


class Record(BaseModel):
    """job-<id>.json. The id in its name identifies the MLflow run even if the content is damaged."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(description="Name of the model")
    provenance: Provenance = Field(description="Provenance, recorded when the training started")
    machines: list[str] = Field(description="Devices and numbers of workers used so far, in order")


@dataclass
class Job:
    """An unfinished training."""

    folder: Path
    id: str
    """Also a tag of its MLflow run."""
    record: Record

    def started(self, event: Event) -> None:
        """Record the machine on which training starts or resumes; warn if it differs from the one before."""
        machine = f"{event['device']}, {event['world']} worker(s)"
        resumed, before = event["resumed"], self.record.machines
        if resumed:
            log.info("%s resumes after epoch %d, update %d", self.record.model, resumed["epoch"], resumed["update"])
        if resumed and before and before[-1] != machine:
            log.warning(
                "it was trained on %s and resumes on %s: the weights will not be bitwise identical to those of an "
                "uninterrupted training",
                before[-1],
                machine,
            )
        machines = [*before, machine] if resumed and before[-1:] != [machine] else before if resumed else [machine]
        self.record = self.record.model_copy(update={"machines": machines})
        self._write()

    def _write(self) -> None:
        record = self.record.model_dump(mode="json")
        files.write_json(self.folder / f"job-{self.id}.json", {"sha256": lineage.digest(record), "record": record})


def essential(params: TaskParams) -> dict[str, Any]:
    """Return the parameters by section, without those that do not affect results."""
    sections = params.model_dump(by_alias=True, mode="json")
    return {
        section: {name: value for name, value in values.items() if name not in _HOW}
        for section, values in sections.items()
    }


def key(model: Model, manifest: Manifest, code: str, sources: Mapping[str, Source]) -> str:
    """Return a key that is equal for trainings with the same parameters, data, code and sources.

    `code` is the hash of what the training imports (`imports.of_training`), so edits of other code do not matter.
    """
    data = manifest.model_dump(mode="json", exclude={"rejected", "ignored"})
    train = essential(model.params)["train"]
    named = {name: source.sha256 for name, source in sources.items()}
    return lineage.digest([model.name, model.task.name, train, data, code, named])


def folder_name(key: str) -> str:
    """Return the name of the folder of a training with this key."""
    return key[:16]


@contextmanager
def resumed_or_new(out: Path, its_key: str, name: str, provenance: Provenance) -> Iterator[Job]:
    """Hold the unfinished training with this key beside the folder `out`, or a new one.

    Its folder is removed if the block succeeds, and otherwise kept so that the training can be resumed.
    """
    folder = out.with_name(UNFINISHED) / folder_name(its_key)
    with locks.alone(folder.with_name(f"{folder.name}.lock"), f"the same training of {name}"):
        job_id = _id(folder)
        if job_id is None:
            files.remove(folder)
            folder.mkdir(parents=True)
            job_id = uuid.uuid4().hex
        # The present provenance can replace a damaged record: with the same key, it differs at most in the time and
        # in code that does not train.
        record = _read(folder) or Record(model=name, provenance=provenance, machines=[])
        job = Job(folder, job_id, record)
        job._write()
        yield job
        files.remove(folder)


def _id(folder: Path) -> str | None:
    file = next(folder.glob("job-*.json"), None)
    return file.stem.removeprefix("job-") if file else None


def _read(folder: Path) -> Record | None:
    """Return the job's record, or None if it is missing or damaged."""
    try:
        saved = json.loads((folder / f"job-{_id(folder)}.json").read_bytes())
        return (
            Record.model_validate(saved["record"]) if saved["sha256"] == lineage.digest(saved["record"]) else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end_orphans(build: Path) -> list[str]:
    """End the MLflow runs of orphaned trainings below `build`; return a sentence for each."""
    messages: list[str] = []
    own, of_flows = (build.glob(f"{folders}/{UNFINISHED}/*/job-*.json") for folders in ("*", f"{models.RUNS}/*"))
    for file in sorted([*own, *of_flows]):
        folder = file.parent
        with locks.if_free(folder.with_name(f"{folder.name}.lock")) as free:
            record, job_id = _read(folder), _id(folder)
            if free and record and job_id and mlflow_runs.end_orphan(record.model, job_id):
                messages.append(f"a training of {record.model} was interrupted: marked its MLflow run as killed")
    return messages
