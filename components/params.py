"""params.yaml -> pydantic models. Reports all problems at once, each with its line and the nearest key."""

import difflib
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from components.display import brief, first
from components.errors import PedigreeError

FILE = "params.yaml"
LARGEST, DEEPEST = 100_000, 20
"""Most keys of a file, counting those that anchors repeat, and deepest nesting of sections."""
MERGE = "tag:yaml.org,2002:merge"
"""YAML's tag of the key `<<`."""
OWN = ("task", "data")
"""Keys of a model's section that are not parameters of its task."""


RENAMED: Mapping[tuple[str, ...], str] = {
    ("tasks",): "is called `models` now, and each model names its `task`: rename it",
    ("prepare", "max_refused"): "is called max_rejected now: rename it",
    ("train", "best_mode"): "is gone, because each metric has a direction of its own: remove it",
    ("train", "model", "init"): "is called train.init.from now: write `init: {from: random, …}` below train",
    ("train", "model", "checkpoint"): "is called train.init.from now: name the file there",
    ("train", "model", "depth"): "is called network now: write resnet18 for 18, resnet34 for 34, whitened for 8",
    ("train", "model", "freeze_backbone"): "is called train.init.freeze now, a number of epochs: set it there",
    ("evaluate", "bootstrap"): "is gone, because intervals need no resampling any more: remove it",
    ("register", "name"): "is gone, because a registered model has its model's name: remove it",
    ("register", "gate", "class_margin"): "is called margins now: write `margins: {class: …}`",
}
"""Keys of earlier versions, at the top of the file or in a model's section, and their replacements."""


class Section(BaseModel):
    """A group of parameters, without defaults: all values come from params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PrepareParams(Section):
    """Preparation parameters of every task."""

    val_share: float = Field(gt=0, lt=1, description="Share of the data for validation if it has no such split")
    test_share: float = Field(
        gt=0, lt=1, description="Share of the data for testing if it has no such split, or is split anew"
    )
    resplit: int = Field(
        ge=0,
        lt=2**31,
        description="0 tests on the data set's own test split, or draws one if it has none; N > 0 pools all "
        "samples, its own splits included, and draws the Nth test split",
    )


class FilesPrepareParams(PrepareParams):
    """Preparation of many files, some of which may be rejected."""

    seed: int = Field(ge=0, lt=2**31, description="Seed of the division into splits")
    max_rejected: float = Field(
        ge=0, lt=1, description="Largest share of rejected raw files before the stage fails"
    )


class OptimizerParams(Section):
    """How gradients become updates."""

    name: Literal["sgd", "adamw", "muon"] = Field(
        description="sgd uses Nesterov momentum; muon trains the hidden matrices, with adamw for the rest"
    )
    lr: float = Field(gt=0, le=100, description="Peak learning rate for the given batch size")
    momentum: float = Field(ge=0, lt=1, description="Momentum of sgd and muon; beta1 of adamw")
    weight_decay: float = Field(
        ge=0, le=1, description="Weight decay of matrices and filters, not of biases and norms"
    )


class ScheduleParams(Section):
    """How the learning rate changes over training."""

    name: Literal["one_cycle", "cosine", "linear", "constant"] = Field(
        description="one_cycle warms up along a cosine, the others linearly; all but constant decay to zero"
    )
    warmup: float = Field(
        ge=0, lt=1, description="Share of all updates in which the learning rate rises to its peak"
    )


class AverageParams(Section):
    """Which weights are validated and saved: those of the last update, or an average over updates."""

    name: Literal["none", "ema", "mean"] = Field(
        description="ema is an exponential moving average; mean weights all updates equally (averaged SGD with sgd)"
    )
    decay: float = Field(ge=0, lt=1, description="Decay of ema; it rises to this value over the first updates")
    start: float = Field(ge=0, lt=1, description="Share of training after which averaging starts")


Source = Annotated[str, "source"]
"""A parameter that names a file, a folder, or a registered version (`models:/NAME@ALIAS`, `models:/NAME/VERSION`).
Shared code finds, hashes and records these sources."""
OptionalSource = Annotated[str, "source", "optional"]
"""A source that need not exist: what needs it is left out then."""
LabelSmoothing = Annotated[float, Field(ge=0, lt=1, description="Share of the target spread over all classes")]
VERSION = "models:/"
"""Begins a source that is a registered version."""
RANDOM = "random"
"""The initial weights that need no source."""
INIT = "train.init.from"
"""The parameter that names the initial weights: training needs this source, the trained model does not."""


class InitParams(Section):
    """The weights that training starts from."""

    from_: Source = Field(
        alias="from",
        description="random, a local file or folder of weights, or a version such as models:/NAME@champion",
    )
    freeze: int = Field(
        ge=0, le=100_000, description="Epochs during which the weights loaded from there stay frozen"
    )
    layer_decay: float = Field(
        gt=0, le=1, description="Ratio of a layer's learning rate to that of the next layer; 1 is equal rates"
    )

    @model_validator(mode="after")
    def _random_weights_are_not_frozen(self) -> Self:
        if self.freeze and self.from_ == RANDOM:
            raise ValueError("freeze needs weights to start from: name them in `from`, or set freeze: 0")
        return self


class ValidationParams(Section):
    """Validation during training, which selects the best weights."""

    every: int = Field(
        ge=0, description="Updates between validations; 0 validates at the end of each epoch instead"
    )
    samples: int = Field(ge=0, description="Most validation samples to use, evenly spaced; 0 uses all")


class TrainParams(Section):
    """Training parameters of every task."""

    seed: int = Field(ge=0, lt=2**31, description="Seed of weights, order, augmentation and dropout")
    workers: int = Field(
        ge=0,
        le=4096,
        description="Ray workers, each on a GPU of its own where there are any; 0 trains in the main process, for "
        "debugging",
    )
    epochs: int = Field(
        ge=0,
        le=100_000,
        description="Passes over the training split; 0 keeps the initial weights, which init names",
    )
    batch_size: int = Field(ge=1, le=1_000_000, description="Samples per update, over all workers")
    accumulate: int = Field(ge=1, le=4096, description="Micro-batches per update on each worker")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        description="bf16 is autocast; auto is bf16 if the device supports it; weights and evaluation stay in fp32"
    )
    compile: bool = Field(
        description="Compile the network, except for recurrent layers: the first updates take a minute longer, and "
        "a resumed training may not be bitwise reproducible. On a GPU, one worker with accumulate: 1 also records "
        "CUDA graphs"
    )
    optimizer: OptimizerParams
    schedule: ScheduleParams
    clip_norm: float = Field(ge=0, description="Maximum norm of the gradient; 0 disables clipping")
    average: AverageParams
    init: InitParams
    validation: ValidationParams
    best_metric: str = Field(description="Validation metric that selects the best weights")
    patience: int = Field(
        ge=0,
        description="Validations without improvement of best_metric before training stops; 0 never stops early",
    )

    checkpoint_seconds: float = Field(
        gt=0, description="Maximum seconds between checkpoints, and so the most work that can be lost"
    )
    retries: int = Field(ge=0, le=100, description="Automatic retries after a worker dies")

    @model_validator(mode="after")
    def _random_weights_are_trained(self) -> Self:
        if not self.epochs and self.init.from_ == RANDOM:
            raise ValueError("epochs: 0 keeps the initial weights: name them in init.from, or train for an epoch")
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        micro_batches = max(self.workers, 1) * self.accumulate
        if self.batch_size % micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided among {max(self.workers, 1)} workers "
                f"x {self.accumulate} micro-batches: make it a multiple of {micro_batches}"
            )
        return self


class EvaluateParams(Section):
    """Evaluation parameters of every task."""

    workers: int = Field(
        ge=0,
        le=4096,
        description="Ray workers, each on a GPU of its own where there are any; 0 evaluates in the main process",
    )
    batch_size: int = Field(ge=1, le=1_000_000, description="Samples per batch; does not affect results")
    seed: int = Field(ge=0, lt=2**31, description="Seed of predictions that are sampled")


BOUNDS = ("at_least", "at_most")
"""The parameters of the gate that are bounds of evaluation metrics, by name."""


class GateParams(Section):
    """Conditions on a new version to become champion."""

    at_least: dict[str, float] = Field(description="Lower bounds of evaluation metrics")
    at_most: dict[str, float] = Field(description="Upper bounds of evaluation metrics")
    level: float = Field(
        ge=0.5,
        lt=1,
        description="Confidence that no challenger of a test split is promoted by chance",
    )
    margins: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={},
        description="By kind of group, such as class: the largest loss against the champion that a group may have",
    )
    beats: list[str] = Field(
        default=[],
        description="Baselines of the task than which the version must not be worse by more than chance",
    )
    pinned: bool = Field(description="Require data that data.dvc pinned when they were prepared or trained on")
    megabytes: float = Field(gt=0, description="Maximum size of the weights, in 10^6 bytes")
    milliseconds: float = Field(
        gt=0, description="Maximum time of the fastest of several predictions on this machine"
    )


class RegisterParams(Section):
    """Registration parameters of every task."""

    gate: GateParams


class TaskParams(Section):
    """The parameters of a model; a task narrows the four sections to its own."""

    prepare: PrepareParams
    train: TrainParams
    evaluate: EvaluateParams
    register_: RegisterParams = Field(alias="register")


P = TypeVar("P", bound=TaskParams)


@dataclass(frozen=True)
class Values:
    """Parameters as written, with the location of each."""

    tree: dict[str, Any]
    locations: dict[tuple[str, ...], str]
    """Path of keys to `file:line`, or to the option that set the value."""

    def over(self, base: "Values") -> "Values":
        """Return `base` overridden by these values, key by key."""
        return Values(_merged(base.tree, self.tree), base.locations | self.locations)

    def below(self, path: tuple[str, ...]) -> "Values":
        """Return these values moved into the section at `path`."""
        tree: dict[str, Any] = self.tree
        for part in reversed(path):
            tree = {part: tree}
        return Values(tree, {(*path, *key): location for key, location in self.locations.items()})

    def section(self, path: tuple[str, ...]) -> Mapping[str, Any] | None:
        """Return the section at `path`, or None if there is none."""
        section: Any = self.tree
        for key in path:
            section = section.get(key) if isinstance(section, Mapping) else None
        return section if isinstance(section, Mapping) else None

    def location(self, path: tuple[str, ...]) -> str:
        """Return the location of the value at `path`, or else of the nearest enclosing section."""
        while path not in self.locations and path:
            path = path[:-1]
        return self.locations.get(path, FILE)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def read(file: Path) -> Values:
    """Read a YAML file of parameters; resolve anchors and merge keys as DVC does.

    Raises:
        PedigreeError: it is missing, is not YAML, or is not a mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
        node = YAML(typ="safe", pure=True).compose(text)
        if not isinstance(node, MappingNode):
            raise PedigreeError(f"{file.name}: expected sections with `key: value` lines and found none")
        locations = _locations(node, file.name)
        return Values(_with_text_keys(YAML(typ="safe").load(text)), locations)
    except FileNotFoundError:
        raise PedigreeError(f"{file} does not exist: run in the project's folder, or name another file") from None
    except UnicodeDecodeError as error:
        raise PedigreeError(f"{file}: byte {error.start} is not UTF-8: save the file as UTF-8") from None
    except ReaderError as error:
        raise PedigreeError(
            f"{file}: character {error.position} is not allowed in YAML: save the file as UTF-8 text"
        ) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PedigreeError(f"{file.name}:{line}: this is not YAML ({error.problem}): correct this line") from None
    except (ValueError, RecursionError) as error:  # such as an invalid date or endless brackets
        raise PedigreeError(f"{file.name}: this cannot be read ({error}): write it as `key: value`") from None


def _locations(top: MappingNode, file: str) -> dict[tuple[str, ...], str]:
    """Return the location of each value; values from an anchor have the location in the anchor.

    Raises:
        PedigreeError: a key occurs twice, an anchor is used inside itself, or anchors make the file too large.
    """
    locations: dict[tuple[str, ...], str] = {}
    seen = 0

    def count(node: Node, inside: tuple[Node, ...]) -> None:
        nonlocal seen
        seen += 1
        if seen > LARGEST or len(inside) > DEEPEST:
            raise PedigreeError(
                f"{_at(node, file)}: over {LARGEST:,} keys, counting those that anchors repeat, or over {DEEPEST} "
                "levels of sections: repeat less"
            )

    def entries(node: MappingNode, inside: tuple[Node, ...]) -> dict[str, tuple[Node, Node]]:
        merged: dict[str, tuple[Node, Node]] = {}
        own: dict[str, tuple[Node, Node]] = {}
        for key, value in node.value:
            count(key, inside)
            if not isinstance(key, ScalarNode):
                raise PedigreeError(f"{_at(key, file)}: this key is not a word: write it as `key: value`")
            if key.tag == MERGE:
                bases = value.value if isinstance(value, SequenceNode) else [value]
                for base in reversed(bases):  # the first of several wins
                    if isinstance(base, MappingNode):  # loading rejects everything else
                        expect_outside(base, inside, key)
                        merged |= entries(base, (*inside, base))
            elif key.value in own:
                raise PedigreeError(
                    f"{_at(key, file)}: duplicate key {key.value}, first on line "
                    f"{own[key.value][0].start_mark.line + 1}: rename or remove one of the two"
                )
            else:
                own[key.value] = key, value
        return merged | own

    def expect_outside(node: Node, inside: tuple[Node, ...], user: Node) -> None:
        if any(node is each for each in inside):
            raise PedigreeError(
                f"{_at(user, file)}: the anchor {node.anchor} is used inside itself: write out the values"
            )

    def walk(node: Node, path: tuple[str, ...], inside: tuple[Node, ...], user: Node) -> None:
        expect_outside(node, inside, user)
        if isinstance(node, SequenceNode):
            for item in node.value:
                count(item, inside)
                walk(item, path, (*inside, node), user)
        elif isinstance(node, MappingNode):
            for name, (key, value) in entries(node, (*inside, node)).items():
                locations[(*path, name)] = _at(key, file)
                walk(value, (*path, name), (*inside, node), key)

    walk(top, (), (), top)
    return locations


def _at(node: Node, file: str) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def _with_text_keys(tree: Any) -> dict[str, Any]:
    """Return a mapping with all keys, at every level, as text."""
    return {str(key): _with_text_keys(value) if isinstance(value, dict) else value for key, value in tree.items()}


def assignment(text: str, root: tuple[str, ...]) -> Values:
    """Read `train.epochs=3`, with a YAML value, as a value below the section `root`.

    Raises:
        PedigreeError: there is no `=`, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise PedigreeError(f"--set {text}: write it as section.key=value, for example train.epochs=3")
    try:
        tree: Any = YAML(typ="safe").load(value)
    except (YAMLError, ValueError, LookupError, RecursionError):  # such as an invalid date or endless brackets
        raise PedigreeError(f"--set {text}: {brief(value)} is not a YAML value: quote it") from None
    path = (*root, *key.strip().split("."))
    for part in reversed(path):
        tree = {part: tree}
    return Values(tree, {path: f"--set {text}"})


def nearest(word: str, right: Iterable[str]) -> str:
    """Return `; did you mean …?` with the nearest of the `right` words, or an empty string if none is near."""
    matches = difflib.get_close_matches(word, list(right), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def validate(model: type[P], values: Values, root: tuple[str, ...]) -> P:
    """Check the section at `root` against `model`.

    Raises:
        PedigreeError: it is invalid; the message lists every problem with its line and remedy.
    """
    section = values.section(root)
    if section is None:
        raise PedigreeError(
            f"{values.location(root)}: there is no section {'.'.join(root)}: add it with its parameters"
        )
    expect_current(values, root)
    try:
        return model.model_validate({key: value for key, value in section.items() if key not in OWN})
    except ValidationError as error:
        errors = error.errors()
    problems: dict[tuple[str, ...], list[str]] = {}
    for details in errors:
        path, problem = _problem(model, root, details)
        problems.setdefault(path, []).append(problem)
    lines = [f"{values.location(path)}: {' or '.join(texts)}" for path, texts in problems.items()]
    count = "one problem" if len(lines) == 1 else f"{len(lines):,} problems"
    raise PedigreeError("\n  ".join([f"{count} with the parameters:", *first(lines)]))


def expect_current(values: Values, root: tuple[str, ...]) -> None:
    """Check that the section at `root` has no key of earlier versions.

    Raises:
        PedigreeError: it has one; the message gives its line and its replacement.
    """
    for keys, remedy in RENAMED.items():
        section = values.section((*root, *keys[:-1]))
        if section is not None and keys[-1] in section:
            path = (*root, *keys)
            raise PedigreeError(f"{values.location(path)}: {'.'.join(path)} {remedy}")


def _problem(model: type[BaseModel], root: tuple[str, ...], details: Any) -> tuple[tuple[str, ...], str]:
    # Inside a union, pydantic appends the name of the alternative that it tried, which is not a key.
    location: tuple[str, ...] = ()
    for part in map(str, details["loc"]):
        if details["type"] != "extra_forbidden" and part not in _keys(model, location):
            break
        location = (*location, part)
    path = (*root, *location)
    name = ".".join(path)
    if details["type"] == "extra_forbidden":
        right = [*_keys(model, location[:-1]), *(OWN if len(location) == 1 else ())]
        return path, f"{name} is not a parameter{nearest(path[-1], right)}"
    if details["type"] == "missing":
        return path, f"{name} is missing: add it"
    return path, f"{name} = {_short(details['input'])}: {details['msg'].removeprefix('Value error, ')}"


def _short(value: Any) -> str:
    return "{…}" if isinstance(value, Mapping) else brief(value)


def _keys(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    for part in path:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return [field.alias or name for name, field in model.model_fields.items()]


S = TypeVar("S", bound=BaseModel)


def with_defaults(model: type[S], values: S) -> type[S]:
    """Return `model` with `values` as the defaults of its fields, at every level.

    A form made from it shows the values in params.yaml, and a caller gives only what differs.
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
    """Return a run's name: the model's name and each parameter that differs from `usual`."""
    given, base = (flat(params.model_dump(by_alias=True, mode="json")) for params in (values, usual))
    changed = [f"{key.removeprefix('train.')}={value}" for key, value in given.items() if value != base.get(key)]
    return " ".join([name, *changed])


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters as `section.key: value`."""
    items: dict[str, Any] = {}
    for key, value in tree.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return items


def sources(params: BaseModel) -> dict[str, str]:
    """Return the values of `Source` parameters by `section.key`, without random initial weights."""
    named: dict[str, str] = {}
    for name, field in type(params).model_fields.items():
        value, key = getattr(params, name), field.alias or name
        if isinstance(value, BaseModel):
            named |= {f"{key}.{inner}": source for inner, source in sources(value).items()}
        elif "source" in field.metadata and value and value != RANDOM:
            named[key] = str(value)
    return named


def optional_sources(params: BaseModel) -> set[str]:
    """Return the `OptionalSource` parameters, as `section.key`."""
    found: set[str] = set()
    for name, field in type(params).model_fields.items():
        value, key = getattr(params, name), field.alias or name
        if isinstance(value, BaseModel):
            found |= {f"{key}.{inner}" for inner in optional_sources(value)}
        elif "optional" in field.metadata:
            found.add(key)
    return found


def located(section: S, root: Path) -> S:
    """Return a section whose `Source` parameters, which name files or folders, are paths below `root`."""
    changed: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            changed[name] = located(value, root)
        elif "source" in field.metadata and value:
            changed[name] = str(root / value)
    return section.model_copy(update=changed)


def sections(values: TaskParams) -> dict[str, BaseModel]:
    """Return a model's sections by name in params.yaml."""
    return {field.alias or name: getattr(values, name) for name, field in type(values).model_fields.items()}
