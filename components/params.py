"""params.yaml -> pydantic models: every problem at once, each with its line and the nearest right key."""

import difflib
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from components.errors import PedigreeError

FILE = "params.yaml"
LARGEST, DEEPEST = 10_000, 20
"""Keys that a file may have with what its anchors repeat, and sections that may stand in one another."""


class Section(BaseModel):
    """A group of parameters. Its values come from params.yaml, so it has no defaults of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PrepareParams(Section):
    """What every task's preparation shares."""

    val_share: float = Field(gt=0, lt=1, description="Part taken for validation where the data has none")


class FilesPrepareParams(PrepareParams):
    """Preparation of many files, some of which may turn out to be unusable."""

    seed: int = Field(ge=0, lt=2**31, description="Seed of the split into parts")
    max_refused: float = Field(ge=0, lt=1, description="Share of unusable raw files above which the stage stops")


class OptimizerParams(Section):
    """How gradients become updates."""

    name: Literal["sgd", "adamw", "muon"] = Field(
        description="sgd is Nesterov's; adamw decouples the decay; muon takes the inner matrices, adamw the rest"
    )
    lr: float = Field(gt=0, le=100, description="Peak learning rate, at the given batch size")
    momentum: float = Field(ge=0, lt=1, description="Momentum of sgd and muon, and beta1 of adamw")
    weight_decay: float = Field(ge=0, le=1, description="Decay of matrices and filters; biases and norms have none")


class ScheduleParams(Section):
    """How the learning rate moves over the whole training."""

    name: Literal["one_cycle", "cosine", "linear", "constant"] = Field(
        description="one_cycle rises and falls along cosines, the next two rise linearly; these three end at zero"
    )
    warmup: float = Field(ge=0, lt=1, description="Share of all updates in which the rate rises to its peak")


class AverageParams(Section):
    """Which weights are validated and kept: the last update's, or an average over updates."""

    name: Literal["none", "ema", "mean"] = Field(
        description="ema decays exponentially; mean weighs all alike, which with sgd is averaged SGD"
    )
    decay: float = Field(ge=0, lt=1, description="Of ema; it rises to this value over the first updates")
    start: float = Field(ge=0, lt=1, description="Share of the training after which averaging begins")


class TrainParams(Section):
    """What the one training loop asks of every task."""

    seed: int = Field(ge=0, lt=2**31, description="Seed of weights, order, augmentation and dropout")
    workers: int = Field(ge=0, le=4096, description="Ray workers; 0 trains in this very process, for a debugger")
    epochs: int = Field(ge=1, le=100_000, description="Passes over the training part")
    batch_size: int = Field(ge=1, le=1_000_000, description="Samples an update, over all workers")
    accumulate: int = Field(ge=1, le=4096, description="Pieces that a worker's share of a batch is computed in")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        description="bf16 is autocast; auto is bf16 where the device has it; weights and evaluation stay in fp32"
    )
    compile: bool = Field(
        description="Compile the network, on a GPU into CUDA graphs: the first updates take a minute longer, and "
        "what was interrupted may end with other last digits"
    )
    optimizer: OptimizerParams
    schedule: ScheduleParams
    clip_norm: float = Field(ge=0, description="Largest norm of the whole gradient; 0 clips nothing")
    label_smoothing: float = Field(ge=0, lt=1, description="Share of the target spread over all classes")
    average: AverageParams
    best_metric: str = Field(description="Validation metric that decides which epoch's weights are kept")
    best_mode: Literal["max", "min"] = Field(description="Whether more or less of best_metric is better")
    patience: int = Field(
        ge=0, description="Epochs without a better best_metric before training stops; 0 never stops"
    )

    checkpoint_seconds: float = Field(
        gt=0, description="Longest time between two checkpoints; as much work may be lost"
    )
    retries: int = Field(ge=0, le=100, description="How often it is taken up again by itself when a process died")

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        pieces = max(self.workers, 1) * self.accumulate
        if self.compile and pieces > 1:
            raise ValueError(
                "compile: true needs one worker and accumulate: 1: CUDA graphs do not add up gradients"
            )
        if self.batch_size % pieces:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided among {max(self.workers, 1)} workers "
                f"x {self.accumulate} pieces: make it a multiple of {pieces}"
            )
        return self


class EvaluateParams(Section):
    """What every task's evaluation shares."""

    workers: int = Field(ge=0, le=4096, description="Ray workers; 0 evaluates in this very process")
    batch_size: int = Field(ge=1, le=1_000_000, description="Samples computed at once; results do not depend on it")
    bootstrap: int = Field(ge=100, le=1_000_000, description="Resamplings behind the confidence interval")
    seed: int = Field(ge=0, lt=2**31, description="Seed of the bootstrap")


class GateParams(Section):
    """What a new version has to be to take the champion's place."""

    at_least: dict[str, float] = Field(description="Metrics of evaluation and the least that each may be")
    at_most: dict[str, float] = Field(description="Metrics of evaluation and the most that each may be")
    level: float = Field(ge=0.5, lt=1, description="Share of the resamplings in which it beats the champion")
    class_margin: float = Field(ge=0, description="By how much any class may be worse than the champion's")
    megabytes: float = Field(gt=0, description="Most that the weights may take, in 10^6 bytes")
    milliseconds: float = Field(gt=0, description="Longest that one answer may take on this machine, as a median")


class RegisterParams(Section):
    """How a model enters the registry."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="Name of the registered model in MLflow")
    gate: GateParams


class TaskParams(Section):
    """One task's part of params.yaml; a task narrows the four sections to its own."""

    prepare: PrepareParams
    train: TrainParams
    evaluate: EvaluateParams
    register_: RegisterParams = Field(alias="register")


P = TypeVar("P", bound=TaskParams)


@dataclass(frozen=True)
class Values:
    """Parameters as written, and where each was written."""

    tree: dict[str, Any]
    places: dict[tuple[str, ...], str]
    """Path of keys to `file:line`, or to the option that set it."""

    def over(self, base: "Values") -> "Values":
        """Return `base` with these values laid over it, key by key."""
        return Values(_merged(base.tree, self.tree), base.places | self.places)

    def place(self, path: tuple[str, ...]) -> str:
        """Return where the value at `path` was written, or else the nearest section round it."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, FILE)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def read(file: Path) -> Values:
    """Read a YAML file of parameters.

    Raises:
        PedigreeError: it is missing, is not YAML, or is not a mapping.
    """
    try:
        tree = YAML().load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PedigreeError(f"{file} does not exist: run in the project's folder, or name another file") from None
    except UnicodeDecodeError as error:
        raise PedigreeError(f"{file}: byte {error.start} is not UTF-8: save the file as UTF-8") from None
    except ReaderError as error:
        raise PedigreeError(
            f"{file}: character {error.position} is not one that YAML may have: save the file as UTF-8 text"
        ) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PedigreeError(f"{file.name}:{line}: this is not YAML ({error.problem}): mend that line") from None
    except (ValueError, RecursionError) as error:  # a date that is none, brackets without end
        raise PedigreeError(f"{file.name}: this cannot be read ({error}): mend what is no `key: value`") from None
    if not isinstance(tree, CommentedMap):
        raise PedigreeError(f"{file.name}: expected sections with `key: value` lines and found none")
    places: dict[tuple[str, ...], str] = {}
    return Values(_plain(tree, (), file.name, places), places)


def _plain(
    node: CommentedMap, path: tuple[str, ...], file: str, places: dict[tuple[str, ...], str]
) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for raw_key, value in node.items():
        key = str(raw_key)
        if len(places) == LARGEST or len(path) == DEEPEST:
            raise PedigreeError(
                f"{file}: over {LARGEST:,} keys, or over {DEEPEST} sections in one another, as from an anchor that "
                "is used inside itself: write each section out, and once"
            )
        places[(*path, key)] = f"{file}:{node.lc.key(raw_key)[0] + 1}"
        plain[key] = _plain(value, (*path, key), file, places) if isinstance(value, CommentedMap) else value
    return plain


def assignment(text: str, root: tuple[str, ...]) -> Values:
    """Read `train.epochs=3`, with a YAML value, as if it stood below the section `root`.

    Raises:
        PedigreeError: there is no `=`, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise PedigreeError(f"--set {text}: write it as section.key=value, for example train.epochs=3")
    try:
        tree: Any = YAML(typ="safe").load(value)
    except MarkedYAMLError:
        raise PedigreeError(f"--set {text}: {value!r} is not a YAML value: quote it") from None
    path = (*root, *key.strip().split("."))
    for part in reversed(path):
        tree = {part: tree}
    return Values(tree, {path: f"--set {text}"})


def nearest(word: str, right: Iterable[str]) -> str:
    """Return `; did you mean …?` for the nearest of the `right` words, or nothing if none is near."""
    matches = difflib.get_close_matches(word, list(right), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def validate(model: type[P], values: Values, root: tuple[str, ...]) -> P:
    """Check the section at `root` against `model`.

    Raises:
        PedigreeError: it lists every problem, each with its line and what would be right.
    """
    section: Any = values.tree
    for key in root:
        section = section.get(key) if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping):
        raise PedigreeError(
            f"{values.place(root)}: there is no section {'.'.join(root)}: add it with its parameters"
        )
    try:
        return model.model_validate(section)
    except ValidationError as error:
        found = error.errors()
    problems: dict[tuple[str, ...], list[str]] = {}
    for details in found:
        path, what = _problem(model, root, details)
        problems.setdefault(path, []).append(what)
    lines = [f"{values.place(path)}: {' or '.join(whats)}" for path, whats in problems.items()]
    count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
    raise PedigreeError("\n  ".join([f"{count} with the parameters:", *lines]))


def _problem(model: type[BaseModel], root: tuple[str, ...], details: Any) -> tuple[tuple[str, ...], str]:
    # pydantic ends the location inside a union with the name of the alternative it tried: not a key, so cut.
    location: tuple[str, ...] = ()
    for part in map(str, details["loc"]):
        if details["type"] != "extra_forbidden" and part not in _keys(model, location):
            break
        location = (*location, part)
    path = (*root, *location)
    name = ".".join(path)
    if details["type"] == "extra_forbidden":
        return path, f"{name} is not a parameter{nearest(path[-1], _keys(model, location[:-1]))}"
    if details["type"] == "missing":
        return path, f"{name} is missing: add it"
    return path, f"{name} = {_short(details['input'])}: {details['msg'].removeprefix('Value error, ')}"


def _short(value: Any) -> str:
    return "{…}" if isinstance(value, Mapping) else repr(value)


def _keys(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    for part in path:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return [field.alias or name for name, field in model.model_fields.items()]


S = TypeVar("S", bound=BaseModel)


def with_defaults(model: type[S], values: S) -> type[S]:
    """Return `model` with `values` as its fields' defaults, all the way down.

    A form made from it shows what params.yaml says, and a caller names only what differs.
    """
    fields: dict[str, Any] = {}
    for name, field in type(values).model_fields.items():
        value, defaulted = getattr(values, name), copy(field)
        annotation: Any = field.annotation
        if isinstance(value, BaseModel):
            annotation = with_defaults(type(value), value)
            value = annotation()
        defaulted.default = value
        fields[name] = (annotation, defaulted)
    return create_model(model.__name__, __base__=model, __module__=model.__module__, **fields)


def label(name: str, values: TaskParams, usual: TaskParams) -> str:
    """Return a run's name: the task's, and each parameter that differs from the usual ones."""
    given, base = (flat(params.model_dump(by_alias=True, mode="json")) for params in (values, usual))
    changed = [f"{key.removeprefix('train.')}={value}" for key, value in given.items() if value != base.get(key)]
    return " ".join([name, *changed])


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters as `section.key: value`."""
    items: dict[str, Any] = {}
    for key, value in tree.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return items


def sections(values: TaskParams) -> dict[str, BaseModel]:
    """Return a task's sections by their names in params.yaml."""
    return {field.alias or name: getattr(values, name) for name, field in type(values).model_fields.items()}
