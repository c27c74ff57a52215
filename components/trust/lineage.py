"""Where a model came from: one JSON file beside its weights, and the same on its version in the registry."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from components import files
from components.contracts import Manifest
from components.errors import PedigreeError
from components.params import flat
from components.trust.tables import table

FILE, DIFF = "lineage.json", "uncommitted.diff"
TAG = "lineage"
"""Of a version: all of it, as JSON."""
NONE = "none"
"""What is said where there is no git, no DVC, no lock or no flow."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Data(_Part):
    """Which data."""

    pinned: str = Field(description="MD5 of data/ that data.dvc pinned, or none")
    raw: str = Field(description="MD5 that DVC gives to the task's own folder in data/, or none")
    prepared: str = Field(description="SHA-256 of the hashes of all prepared splits")
    test_split: str = Field(description="SHA-256 of the prepared test split")


class Code(_Part):
    """Which code."""

    commit: str = Field(pattern="^([0-9a-f]{40}|[0-9a-f]{64}|none)$", description="Of git, or none")
    dirty: bool = Field(description="The tree had changes that are in no commit; uncommitted.diff has them")
    components: str = Field(description="SHA-256 of the source of components/")
    lock: str = Field(description="SHA-256 of requirements.lock, or none")


class Machine(_Part):
    """On what it was trained."""

    device: str
    world: int = Field(description="Workers that trained together")
    python: str
    platform: str
    packages: dict[str, str] = Field(description="Installed distributions and their versions")
    earlier: list[str] = Field(
        default=[],
        description="Devices and workers that it began on, where it went on on others",
    )


class Runs(_Part):
    """Under which names the tools know of it."""

    prefect: str = Field(description="Id of the flow run, or none")
    ray: str
    mlflow: str


class Lineage(_Part):
    """All that made a model: equal data, code and parameters make equal weights on an equal machine."""

    task: str
    started: str = Field(description="When training began, in UTC")
    data: Data
    code: Code
    params: dict[str, JsonValue]
    params_sha256: str
    seed: int
    machine: Machine
    runs: Runs
    weights: str = Field(description="SHA-256 of weights.safetensors")

    def tags(self) -> dict[str, str]:
        """Return what people search versions and runs by."""
        return {
            "data": self.data.pinned,
            "data.raw": self.data.raw,
            "data.prepared": self.data.prepared,
            "data.test_split": self.data.test_split,
            "git.commit": self.code.commit,
            "git.dirty": str(self.code.dirty).lower(),
            "code": self.code.components,
            "lock": self.code.lock,
            "params": self.params_sha256,
            "seed": str(self.seed),
            "device": self.machine.device,
            "world": str(self.machine.world),
            "run.prefect": self.runs.prefect,
            "run.ray": self.runs.ray,
            "run.mlflow": self.runs.mlflow,
            "weights": self.weights,
        }

    def markdown(self) -> str:
        """Return the ancestry as a table that MLflow shows; with the beginnings of hashes."""
        data, code, runs = self.data, self.code, self.runs
        began = "".join(f"{each}; then " for each in self.machine.earlier)
        machine = f"{began}{self.machine.device}, {self.machine.world} worker(s), Python {self.machine.python}"
        rows = (
            ("data", f"{_short(data.pinned)}, of {self.task}: {_short(data.raw)}"),
            ("prepared", _short(data.prepared)),
            ("test split", _short(data.test_split)),
            ("commit", _short(code.commit) + (f", **dirty**: {DIFF} has the rest" if code.dirty else "")),
            ("source of components", _short(code.components)),
            ("lock", _short(code.lock)),
            ("params", f"{_short(self.params_sha256)}, seed {self.seed}"),
            ("machine", machine),
            ("trained", self.started),
            ("MLflow run", _whole(runs.mlflow)),
            ("Ray run", _whole(runs.ray)),
            ("Prefect flow run", _whole(runs.prefect)),
            ("weights", _short(self.weights)),
        )
        return table(("made from", "which"), rows)


def _whole(known: str) -> str:
    return known if known == NONE else f"`{known}`"


def _short(known: str) -> str:
    return _whole(known[:12])


class Change(NamedTuple):
    """Something that is not the same in two lineages."""

    what: str
    """data, code, lock, params, hardware or world size."""
    old: str
    new: str


SHOWN = 5
"""Packages or parameters of which a change tells one by one."""


def changes(old: Lineage, new: Lineage) -> list[Change]:
    """Return what could make two trainings differ, with both values; nothing when all of it is the same."""
    before, after = flat(old.params), flat(new.params)
    return [
        *_change("data", _data(old.data), _data(new.data)),
        *_change("code", {"components": old.code.components}, {"components": new.code.components}),
        *_change("lock", old.machine.packages, new.machine.packages),
        *_change(
            "params", {key: str(value) for key, value in before.items()}, {k: str(v) for k, v in after.items()}
        ),
        *_change("hardware", _hardware(old.machine), _hardware(new.machine)),
        *_change("world size", {"workers": str(old.machine.world)}, {"workers": str(new.machine.world)}),
    ]


def _data(data: Data) -> dict[str, str]:
    return {"raw": data.raw, "prepared": data.prepared, "test split": data.test_split}


def _hardware(machine: Machine) -> dict[str, str]:
    earlier = {"begun on": ", ".join(machine.earlier)} if machine.earlier else {}
    return {"device": machine.device, "platform": machine.platform, "Python": machine.python, **earlier}


def _change(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if keys:
        more = [f"and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
        told = ([*(f"{key} {side.get(key, NONE)}" for key in keys[:SHOWN]), *more] for side in (old, new))
        yield Change(what, *map(", ".join, told))


def digest(value: Any) -> str:
    """Return the SHA-256 of a value that JSON can say; equal values have equal ones."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def of_prepared(manifest: Manifest) -> str:
    """Return one hash for all splits of prepared data."""
    return digest({name: split.sha256 for name, split in manifest.splits.items()})


def of_source(folder: Path) -> str:
    """Return one hash for all Python files below a folder, by their names and bytes."""
    sources = sorted(path for path in folder.rglob("*.py") if path.is_file())
    return digest([[path.relative_to(folder).as_posix(), files.sha256(path)] for path in sources])


def parse(text: str, where: str) -> Lineage:
    """Read a lineage from its JSON.

    Raises:
        PedigreeError: it is not what was written.
    """
    try:
        return Lineage.model_validate_json(text)
    except ValidationError as error:
        raise PedigreeError(f"{where} is damaged ({error.error_count()} problems): train again") from None


def read(folder: Path) -> Lineage:
    """Read the lineage of a trained model's folder.

    Raises:
        PedigreeError: it is not there, or is not what was written.
    """
    try:
        return parse((folder / FILE).read_text(encoding="utf-8", errors="replace"), str(folder / FILE))
    except FileNotFoundError:
        raise PedigreeError(f"{folder / FILE} is missing: run the train stage again") from None
