"""The lineage of a model, stored as a JSON file beside its weights and as a record of its registered version."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from components import display
from components.contracts import Manifest
from components.errors import PedigreeError
from components.params import flat
from components.runtime import files
from components.trust.tables import table

FILE, DIFF = "lineage.json", "uncommitted.diff"
TAG = "lineage"
"""Record of a version: the lineage as JSON."""
NONE = "none"
"""Value of fields without git, DVC, a lock file or a flow."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Data(_Part):
    """The data of a model."""

    name: str = Field(default="", description="Name of the data set; empty in old versions")
    pinned: str = Field(description="MD5 of the data set pinned by DVC, or none")
    raw: str = Field(description="MD5 that DVC gives to the raw folder, or none")
    prepared: str = Field(description="SHA-256 of the hashes of all prepared splits")
    test_split: str = Field(description="SHA-256 of the prepared test split")


class Code(_Part):
    """The code of a model."""

    commit: str = Field(pattern="^([0-9a-f]{40}|[0-9a-f]{64}|none)$", description="Git commit, or none")
    dirty: bool = Field(description="Whether there were uncommitted changes, saved in uncommitted.diff")
    only: list[str] = Field(
        default=[],
        description="The files with uncommitted changes, if they hold no code: params.yaml, data.dvc, prefect.yaml",
    )
    components: str = Field(description="SHA-256 of the source of components/")
    lock: str = Field(description="SHA-256 of requirements.lock, or none")

    @property
    def changes(self) -> str:
        """What changes were uncommitted, as a phrase; empty if there were none."""
        listed = " and ".join([*filter(None, [", ".join(self.only[:-1])]), *self.only[-1:]])
        which = f" of {listed} alone" if self.only else ""
        return f"uncommitted changes{which}" if self.dirty else ""


class Machine(_Part):
    """The machine on which a model was trained."""

    device: str
    world: int = Field(description="Number of workers")
    python: str
    platform: str
    packages: dict[str, str] = Field(description="Installed distributions and their versions")
    earlier: list[str] = Field(
        default=[],
        description="Devices and numbers of workers used before training resumed on others",
    )

    @property
    def repeats(self) -> bool:
        """Whether the same training has bitwise the same weights there each time."""
        return self.device.startswith("cpu")


class Source(_Part):
    """A source that a parameter names: a file, a folder, or a registered version."""

    named: str = Field(description="The parameter's value")
    exact: str = Field(description="The value with an alias resolved to a version")
    sha256: str = Field(description="Hash of the file, of the folder's file list, or of the version's weights")


class Runs(_Part):
    """Ids of a training in other tools."""

    prefect: str = Field(description="Id of the flow run, or none")
    ray: str
    mlflow: str


class Lineage(_Part):
    """What determines a model: on the same `Machine`, equal data, code and parameters give equal weights.

    They are bitwise equal on a CPU. On a GPU, some of torch's operations have no deterministic implementation.
    """

    model: str = Field(default="", description="Name of the model; empty in old versions")
    task: str
    started: str = Field(description="Start of training, in UTC")
    data: Data
    code: Code
    params: dict[str, JsonValue]
    params_sha256: str
    seed: int
    machine: Machine
    runs: Runs
    sources: dict[str, Source] = Field(default={}, description="Sources that parameters name, by parameter")
    weights: str = Field(description="SHA-256 of weights.safetensors")

    def tags(self) -> dict[str, str]:
        """Return the tags by which users search versions and runs."""
        return {
            "data": self.data.pinned,
            "data.name": self.data.name,
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
        """Return the ancestry as a Markdown table with abbreviated hashes."""
        data, code, runs = self.data, self.code, self.runs
        pinned = "" if data.pinned != NONE else ", not pinned"
        began = "".join(f"{each}; then " for each in self.machine.earlier)
        machine = f"{began}{self.machine.device}, {self.machine.world} worker(s), Python {self.machine.python}"
        rows = (
            ("data", f"{display.markdown(data.name or self.task)}, {_short(data.raw)}{pinned}"),
            ("prepared", _short(data.prepared)),
            ("test split", _short(data.test_split)),
            ("commit", _short(code.commit) + (f", with {code.changes}: see {DIFF}" if code.dirty else "")),
            ("source of components", _short(code.components)),
            ("lock", _short(code.lock)),
            ("params", f"{_short(self.params_sha256)}, seed {self.seed}"),
            *(
                (display.markdown(key), f"{display.markdown(source.exact)}, {_short(source.sha256)}")
                for key, source in self.sources.items()
            ),
            ("machine", display.markdown(machine)),
            ("trained", display.markdown(self.started)),
            ("MLflow run", _quoted(runs.mlflow)),
            ("Ray run", _quoted(runs.ray)),
            ("Prefect flow run", _quoted(runs.prefect)),
            ("weights", _short(self.weights)),
        )
        return table(("made from", "which"), rows)


def _quoted(text: str) -> str:
    return text if text == NONE else f"`{text}`"


def _short(text: str) -> str:
    return _quoted(text[:12])


class Change(NamedTuple):
    """A difference between two lineages."""

    what: str
    """What differs, such as data, code, params or sources."""
    old: str
    new: str


SHOWN = 5
"""Most packages or parameters that a change lists."""


def changes(old: Lineage, new: Lineage) -> list[Change]:
    """Return all differences that could change the result of a training, with both values."""
    before, after = flat(old.params), flat(new.params)
    return [
        *_change("data", _data(old.data), _data(new.data)),
        *_change("code", {"components": old.code.components}, {"components": new.code.components}),
        *_change("lock", old.machine.packages, new.machine.packages),
        *_change(
            "params", {key: str(value) for key, value in before.items()}, {k: str(v) for k, v in after.items()}
        ),
        *_change("sources", _sources(old), _sources(new)),
        *_change("hardware", _hardware(old.machine), _hardware(new.machine)),
        *_change("world size", {"workers": str(old.machine.world)}, {"workers": str(new.machine.world)}),
    ]


def _sources(lineage: Lineage) -> dict[str, str]:
    return {key: source.sha256 for key, source in lineage.sources.items()}


def _data(data: Data) -> dict[str, str]:
    return {"raw": data.raw, "prepared": data.prepared, "test split": data.test_split}


def _hardware(machine: Machine) -> dict[str, str]:
    earlier = {"started on": ", ".join(machine.earlier)} if machine.earlier else {}
    return {"device": machine.device, "platform": machine.platform, "Python": machine.python, **earlier}


def _change(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if keys:
        more = [f"and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
        sides = ([*(f"{key} {side.get(key, NONE)}" for key in keys[:SHOWN]), *more] for side in (old, new))
        yield Change(what, *map(", ".join, sides))


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def of_version(tags: Mapping[str, str], address: str) -> str:
    """Return the SHA-256 of the weights of a registered version, from its tags.

    Raises:
        PedigreeError: it was registered without a lineage.
    """
    if "weights" not in tags:
        raise PedigreeError(
            f"{address} was registered without a lineage, so its weights have no known hash: name a version that "
            "`pedigree run` or `dvc repro` registered, or a file"
        )
    return tags["weights"]


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
        PedigreeError: it is damaged.
    """
    try:
        return Lineage.model_validate_json(text)
    except ValidationError as error:
        raise PedigreeError(f"{where} is damaged ({error.error_count()} problems): train again") from None


def read(folder: Path) -> Lineage:
    """Read the lineage of a trained model's folder.

    Raises:
        PedigreeError: it is missing or damaged.
    """
    try:
        return parse((folder / FILE).read_text(encoding="utf-8", errors="replace"), str(folder / FILE))
    except FileNotFoundError:
        raise PedigreeError(f"{folder / FILE} is missing: run the train stage again") from None
