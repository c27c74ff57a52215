"""What the stages hand to each other, and what a task says of itself.

Files are the contract: each of these values names a folder that a stage wrote whole, so that a stage can
be run alone, on another machine, on another day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from components.params import TaskParams

if TYPE_CHECKING:  # importing torch takes seconds, and who only asks MLflow needs none
    import torch
    from torch import Tensor, nn

P = TypeVar("P", bound=TaskParams)

Batch = dict[str, "Tensor"]
"""Named tensors that share their first dimension, one entry a sample."""


class Refusal(BaseModel):
    """A raw file that was left out, and why."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(description="Path below the task's raw folder")
    reason: str


class Split(BaseModel):
    """One part of the prepared data."""

    model_config = ConfigDict(frozen=True)

    samples: int
    sha256: str = Field(description="Of the arrays' bytes: equal hashes mean equal samples in equal order")


class Manifest(BaseModel):
    """manifest.json beside the prepared arrays: what was kept, what was refused, and why."""

    model_config = ConfigDict(frozen=True)

    task: str
    splits: dict[str, Split] = Field(description="train, val and test")
    refused: list[Refusal]
    facts: dict[str, JsonValue] = Field(description="What the task's model needs to know of the data")
    note: str = Field(default="", description="What must be said wherever a number made on this data is shown")
    raw: str = Field(default="none", description="MD5 that DVC gives to the raw folder; none where there is no DVC")


@dataclass(frozen=True)
class Prepared:
    """A folder of memory-mapped arrays and their manifest."""

    folder: Path
    manifest: Manifest


@dataclass(frozen=True)
class Trained:
    """A folder that rebuilds a network: weights.safetensors, model.json, and history.csv of its training."""

    folder: Path
    run_id: str
    """Of the MLflow run that every later stage of the same job goes on with."""


@dataclass(frozen=True)
class Outcomes:
    """What each test sample adds to the score, which is `Task.scale` of their mean."""

    names: Sequence[str]
    """Of the samples, N: their files, or their places."""
    sums: NDArray[np.float64]  # (N,)
    counts: NDArray[np.int64]  # (N,)
    classes: Sequence[str] = ()
    """The true class of each sample, where samples have one."""
    sources: Sequence[str] = ()
    """Where samples of one source, such as a speaker, are alike: that of each."""

    @property
    def mean(self) -> float:
        """Over all that is counted."""
        return float(self.sums.sum() / self.counts.sum())


@dataclass(frozen=True)
class Evaluated:
    """A folder with metrics.json, plots and examples for the untouched test split."""

    folder: Path
    metrics: dict[str, float]


@dataclass(frozen=True)
class Registered:
    """A version in MLflow's model registry."""

    name: str
    version: int
    aliases: tuple[str, ...]
    reason: str
    """Why the version is champion, or is not, in one sentence."""
    verdict: Sequence[Mapping[str, str | bool]] = ()
    """The gate's rules: `rule`, `found` and `passed`."""


class Batches(Protocol):
    """Batches by their place in the epoch, so that a run can go on from any of them."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Batch: ...


@dataclass(frozen=True)
class Plan:
    """Which epoch's batches are wanted, and which worker's share of each."""

    epoch: int = 0
    rank: int = 0
    world: int = 1


Event = dict[str, Any]
"""What a training tells of itself, JSON all through: `{"kind": "starting" | "start" | "progress" | "epoch", ...}`.

Between the first two its workers start, if it has any, for whose seconds the driver has nothing to do.
"""


@dataclass(frozen=True)
class Workers:
    """A worker's place among the workers of a run, and how it tells of its progress (rank 0 only)."""

    device: torch.device
    rank: int = 0
    world: int = 1
    emit: Callable[[Event], None] = lambda event: None


@dataclass(frozen=True)
class StepOutput:
    """What a step on one batch gives; `sums` and `count` add up over batches and workers."""

    loss: Tensor
    """Scalar, mean over the batch, differentiable."""
    sums: dict[str, Tensor]
    """Scalars, float64, detached."""
    count: int
    """What the sums are divided by: samples, or the tokens in them."""
    rate: float = 1.0
    """What the learning rate is multiplied by for this update."""
    carry: Batch = field(default_factory=dict)
    """Detached; the epoch's next batch holds these tensors too, such as a recurrent network's state."""


Kind = Literal["binary", "string", "long", "double", "strings", "doubles", "map"]
"""Of a served model's column; the plural ones are lists, a map is from names to numbers."""


@dataclass(frozen=True)
class Served:
    """A registered model as its callers see it."""

    inputs: dict[str, Kind]
    outputs: dict[str, Kind]
    example: dict[str, Any]
    """One input row."""
    requirements: tuple[str, ...]
    """Distributions that predicting needs beyond torch, pydantic and safetensors."""
    optional: frozenset[str] = frozenset()
    """Inputs that a row may lack."""
    params: dict[str, bool | int | float | str] = field(default_factory=dict)
    """What a request may set for all its rows, with the defaults."""
    file: str | None = None
    """The input that a file's content fills for `pedigree predict`, binary or string; None where no file is one."""


Predict = Callable[[list[dict[str, Any]], Mapping[str, Any]], list[dict[str, Any]]]
"""Input rows and the request's parameters in, output rows out, in the same order."""


@dataclass(frozen=True)
class Task(Generic[P]):
    """All that is a task's own. Everything else is the same code for every task."""

    name: str
    params: type[P]
    default_data: Callable[[Path], None]
    """Write the embedded data set's files into an empty folder, byte for byte the same everywhere."""
    public_data: Mapping[str, Callable[[Path, Path], None]]
    """By name: fetch a public data set (into the second folder) and write its files into the first."""
    prepare: Callable[[Path, Path, P], Manifest]
    """Raw folder and empty output folder to arrays and manifest."""
    build_model: Callable[[P, Manifest], nn.Module]
    """The architecture with random weights, to be trained or to be filled from a file."""
    initialise: Callable[[nn.Module, P, Batch], None]
    """Start from a checkpoint's weights, or from what the training split gives, where the parameters say so."""
    load_split: Callable[[Path, str], Batch]
    """Prepared folder and split's name to tensors on memory-mapped arrays."""
    train_batches: Callable[[Batch, P, Plan], Batches]
    """The training split's batches; every worker gets an equal share of each."""
    eval_batches: Callable[[Batch, int], Batches]
    """A split and samples a batch to batches in a fixed order, each sample once."""
    augment: Callable[[Batch, P], Batch]
    """Random changes to a whole batch on the training device, drawn from the default generator."""
    step: Callable[[nn.Module, Batch, P], StepOutput]
    metrics: Callable[[Mapping[str, float], int], dict[str, float]]
    """Sums and their count to metrics by name."""
    predict: Callable[[nn.Module, Batch], Batch]
    """What evaluation needs of each sample, as tensors on the CPU."""
    evaluate: Callable[[nn.Module, Batch, Prepared, Path, P], dict[str, float]]
    """The network, on the CPU, and all its predictions on the test split to metrics; writes plots/ (pictures)
    and examples/ into the folder."""
    outcomes: Callable[[Batch, Prepared], Outcomes]
    """All predictions on the test split to what each sample adds to the score."""
    scale: Callable[[float], float]
    """A mean of outcomes to a score: rising or falling all the way, with `better` as for the score."""
    readable: frozenset[str]
    """Facts of the manifest that must be the same for a network trained on one data set to read another."""
    score: str
    """The metric of `evaluate` by which champion and challenger are compared."""
    better: Literal["more", "less"]
    """Which score is the better one."""
    served: Callable[[Manifest], Served]
    load_predict: Callable[[nn.Module, Manifest], Predict]
