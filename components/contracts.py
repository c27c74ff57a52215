"""What stages pass to each other, and what a task defines.

Files are the contract: each value names a folder that a stage wrote completely, so that any stage can run alone,
later, or on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue

from components.params import TaskParams

if TYPE_CHECKING:  # importing torch takes seconds, and commands that only query MLflow do not need it
    import torch
    from torch import Tensor, nn

P = TypeVar("P", bound=TaskParams)

Batch = dict[str, "Tensor"]
"""Named tensors that share their first dimension, with one entry per sample."""


class RejectedFile(BaseModel):
    """A raw file that was rejected, and why."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(description="Path relative to the raw folder")
    reason: str


class Part(BaseModel):
    """One split of the prepared data."""

    model_config = ConfigDict(frozen=True)

    samples: int
    sha256: str = Field(description="Hash of the arrays' bytes: equal hashes mean equal samples in equal order")


class Manifest(BaseModel):
    """manifest.json beside the prepared arrays: what was accepted, and what was rejected and why."""

    model_config = ConfigDict(frozen=True)

    task: str
    splits: dict[str, Part] = Field(description="train, val and test")
    rejected: list[RejectedFile] = Field(validation_alias=AliasChoices("rejected", "refused"))
    ignored: list[str] = Field(default=[], description="Files passed over: hidden, a system's, or about the data")
    facts: dict[str, JsonValue] = Field(description="What the model needs to know about the data")
    drawn: str = Field(default="", description="What was drawn for testing; empty if the data set has a test split")
    tested: str = Field(default="", description="Where the test samples are, if their own names do not tell")
    untested: str = Field(default="", description="Why its test samples say little of others; bars promotion")
    note: str = Field(default="", description="Caveat to show beside every number computed on this data")
    data: str = Field(default="", description="Name of the data set; empty in old versions")
    raw: str = Field(default="none", description="MD5 that DVC gives to the files that were read; none without DVC")
    pinned: bool = Field(default=False, description="Whether data.dvc pinned exactly these files at that time")


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
    """The MLflow run, which every later stage of the same job continues."""


Better = Literal["more", "less"]
"""Whether more or less of a metric is better."""
Columns = Mapping[str, NDArray[np.float64]]
"""Named columns of a table, each (R,) or (R, D)."""


@dataclass(frozen=True)
class Outcomes:
    """A long table of the results on each test sample, from whose columns a `Score` is computed.

    In most tasks a sample has one row. It can have several, such as one per detected box, or none if there is
    nothing to count.
    """

    samples: Sequence[str]
    """N unique names: files, or positions in the data."""
    columns: Columns
    """By name, such as `correct`, or `errors` and `words`; each (R,) or (R, D)."""
    sample: NDArray[np.int64] | None = None
    """The sample of each row, (R,); None if row i belongs to sample i."""
    clusters: Sequence[str] = ()
    """The cluster of each sample, N, if samples of a cluster, such as a speaker, are alike: intervals then count
    clusters."""
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By kind, such as class or site: the group of each row, R. The gate checks each group separately."""

    @property
    def row_samples(self) -> NDArray[np.int64]:
        """The sample of each row, (R,)."""
        return np.arange(len(self.samples)) if self.sample is None else self.sample


@dataclass(frozen=True)
class Score:
    """The number by which two versions are compared: any function of weighted rows, not only a mean."""

    name: str
    """Its name among the metrics of `Task.evaluate`."""
    better: Better
    of: Callable[[Columns, NDArray[np.float64]], float]
    """Computes the score from columns of outcomes and a weight per row, (R,). A row with weight 2 counts like two
    rows, one with weight 0 not at all."""
    share: bool = False
    """Whether it lies between 0 and 1, so that a verdict gives differences in points."""
    graded: bool = False
    """Whether a sample can be right in part, as an image is of which pixels or boxes count: the interval of a share
    can then be narrower than that of as many samples that are right or wrong."""
    counted: Callable[[Columns], NDArray[np.bool_]] | None = None
    """Returns which rows of the columns it depends on, (R,), so that an interval counts only their samples. None:
    on all."""


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
    """Why the version is or is not the champion, in one sentence."""
    verdict: Sequence[Mapping[str, str | bool]] = ()
    """The gate's rules: `rule`, `found` and `passed`."""


class Split(Protocol):
    """A prepared split, gathered one batch at a time; `__getitems__` is that of torch's map-style datasets.

    A tensor `x` whose samples have different lengths is zero-padded at the end; the batch then also has `x_length`,
    int64 (B,), or for two dimensions `x_size`, int64 (B, 2).
    """

    @property
    def lengths(self) -> Tensor | None:
        """The cost of each sample, (N,), by which samples are bucketed; None if all cost the same."""

    @property
    def device(self) -> torch.device:
        """The device on which indices should be."""

    @property
    def nbytes(self) -> int:
        """The bytes that `to` moves."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Tensor, /) -> Batch:
        """Return the samples at `indices`, int64 (B,), in that order."""

    def read_ahead(self, indices: Tensor, /) -> None:
        """Advise the operating system that these samples will be read next."""

    def to(self, device: torch.device, /) -> Split:
        """Return the whole split on a device."""


class Batches(Protocol):
    """Batches by their index in the epoch, so that training can resume at any batch.

    On a GPU, a thread may gather the next one during an update: they must not use torch's global random generator.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Batch: ...


@dataclass(frozen=True)
class Shard:
    """One worker's shard of an epoch: worker `rank` of `world` gets its part of every batch."""

    epoch: int = 0
    rank: int = 0
    world: int = 1


Event = dict[str, Any]
"""A training event, JSON only: `{"kind": "starting" | "start" | "progress" | "validation", ...}`.

Ray workers start between the first two, which takes seconds in which the driver is idle.
"""


@dataclass(frozen=True)
class Worker:
    """One worker of a run: device, rank among `world` workers, and where it reports events (rank 0 only).

    Once `problem` returns a text, training should write a checkpoint and end with it as its error.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    emit: Callable[[Event], None] = lambda event: None
    problem: Callable[[], str] = str


@dataclass(frozen=True)
class StepOutput:
    """The result of a step on one batch. Loss, count and sums add up over micro-batches, workers and batches."""

    loss: Tensor
    """Scalar: the SUM of the loss over what `count` counts, differentiable in training, float32 or float64."""
    count: int | Tensor
    """Number of tokens, frames, boxes or samples that the loss is summed over, maybe 0; scalar if a tensor."""
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    """What metrics are computed from: float64 tensors of any shape, detached. The loop adds `loss`."""
    rate: float = 1.0
    """Factor on the learning rate for this update."""
    carry: Batch = field(default_factory=dict)
    """Detached state, such as a recurrent network's, that is added to the epoch's next batch."""


Kind = Literal["binary", "string", "long", "double", "binaries", "strings", "doubles", "map", "records"]
"""Type of a served model's column. `binaries`, `strings` and `doubles` are lists, a `map` is from names to
numbers, `records` is a list of flat objects."""
Row = dict[str, Any]
"""A row of a request or a response: values by column."""
ID = "id"
"""Column of a table that stands in the answers, too, so that they can be joined to its rows."""
NOTE = "note"
"""Column of a response with what a caller should know about the answer, which is not part of it; may be empty."""


@dataclass(frozen=True)
class Rejected:
    """Why a row was rejected, in one sentence that says what to send instead."""

    reason: str


@dataclass(frozen=True)
class Served:
    """A registered model as its callers see it."""

    inputs: Mapping[str, Kind]
    """Empty for a model that needs no input."""
    outputs: Mapping[str, Kind]
    """Which of them an answer has may depend on the params."""
    example: Row
    """One input row."""
    requirements: tuple[str, ...]
    """Distributions that prediction needs besides torch, pydantic and safetensors."""
    optional: frozenset[str] = frozenset()
    """Inputs that a row may omit."""
    params: Mapping[str, bool | int | float | str | type[float]] = field(default_factory=dict)
    """Parameters that a request can set for all its rows, with their defaults; `float` for a number that is None
    unless a request sets it."""
    file: str | None = None
    """The binary or string input that `pedigree predict` fills with a file's content. None: its files are tables of
    rows."""
    lines: Mapping[str, bool | int | float | str] | None = None
    """Params with which `pedigree predict` makes each line of a file a row: an empty mapping always, None never."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """By input: its column in tables of texts (.csv, .tsv, .jsonl), which `pedigree predict` then reads as
    preparation does. A table may also call the column as the input. Empty: only files of rows are tables."""
    header: bool = True
    """Whether the first line of such a table names its columns; without, they are called 1, 2, …"""
    readers: Mapping[str, Callable[[Path], Iterable[tuple[str, Row | Rejected]]]] = field(default_factory=dict)
    """By suffix of a file, such as ".json", of a format of the field with many rows: yields the id and the row of
    each, or why it has none; raises PedigreeError for the file."""
    media: Mapping[str, str] = field(default_factory=dict)
    """Media types of outputs that are binary, or lists of it, such as {"mask": "image/png"}."""
    formats: Mapping[str, Callable[[str, Row], Sequence[Row]]] = field(default_factory=dict)
    """Formats of the field, such as "coco", in which `pedigree predict` can print answers: maps the path of a file
    and its answer, with binary outputs in base64, to the answer's entries in one list of JSON objects. The answer
    to a row that has an id has it, too, in the column `id`."""
    objects: Mapping[str, Callable[[str, Row], Mapping[str, Row]]] = field(default_factory=dict)
    """Formats of the field that are JSON objects, such as "squad": maps the path of a file and its answer to the
    answer's entries in each object, by the name of the object's file, such as "predictions.json".
    `pedigree predict` prints the first object, or writes all of them into a folder."""


Predict = Callable[[list[Row], Mapping[str, Any]], list[Row | Rejected]]
"""Maps input rows and the request's parameters to one answer or rejection per row, in the same order.

Raises PedigreeError for the whole request if its parameters are invalid.
"""

Sources = Mapping[str, Path]
"""By parameter, such as `train.init.from`: a local copy of the file or folder that it names. For a version this is
the folder with weights.safetensors and model.json."""

Answering = Callable[[Path], Predict]
"""Maps the path of a registered version in `Sources` to the function that answers requests with it."""

S = TypeVar("S", bound=Split)


@dataclass(frozen=True)
class Task(Generic[P, S]):
    """Everything specific to a task; all other code is shared by all tasks.

    A field that is None selects the default that its comment describes.
    """

    name: str
    params: type[P]
    embedded: Mapping[str, Callable[[Path], None]]
    """By name: writes an embedded data set's files into an empty folder, with the same bytes on every machine if
    data.dvc pins it."""
    public_data: Mapping[str, Callable[[Path, Path], None]]
    """By name: downloads a public data set into the second folder and writes its files into the first."""
    prepare: Callable[[Path, Path, P], Manifest]
    """Reads the raw folder, writes arrays into the empty output folder, and returns the manifest."""
    load_split: Callable[[Path, str], S]
    """Opens a split of the prepared folder by its name, on memory-mapped arrays."""
    build_model: Callable[[P, Manifest], nn.Module]
    """Builds the network with random weights, to be trained or to load weights from a file."""
    step: Callable[[nn.Module, Batch, P], StepOutput]
    """Computes loss and sums of one batch. In evaluation mode it may decode, for metrics that need predictions."""
    better: Mapping[str, Better]
    """The validation metrics that `train.best_metric` can name, with their directions."""
    predict: Callable[[nn.Module, Batch, P], Batch]
    """Computes what evaluation needs from each sample of a batch. The random generator is seeded by the batch's
    index. Returned tensors have one entry per sample, (B, ...)."""
    outcomes: Callable[[Iterable[Batch], Prepared, P], Outcomes]
    """Turns the predictions on the test split, in its order, into the results on each sample."""
    score: Callable[[Manifest], Score]
    """Returns the score, computed from `outcomes`, by which champion and challenger are compared."""
    evaluate: Callable[[nn.Module, Iterable[Batch], Prepared, Path, P], dict[str, float]]
    """Computes metrics, including the score, from the network on the CPU and the predictions on the test split;
    writes plots/ (images) and examples/ into the folder. A group's metric is named `<metric>/<group>`."""
    served: Callable[[Manifest, P], Served]
    load_predict: Callable[[nn.Module, Manifest, P], Predict]
    survey: Callable[[Path, Any], object] | None = None
    """Lists the raw folder as `prepare` does, given the parameters' section `prepare`, without reading samples;
    raises PedigreeError for a folder that `prepare` would reject. None: only `prepare` finds out."""
    rows: Callable[[Prepared, Callable[[], Path]], Iterable[Row]] | None = None
    """Returns the test split as rows of a request, which any version can answer; the second argument returns the
    raw folder. None: a version is compared only with versions that were evaluated on the same test split."""
    outcomes_from: Callable[[Iterable[Row | Rejected], Prepared], Outcomes] | None = None
    """Turns the answers to `rows` into outcomes with the samples, columns and groups of `outcomes`."""
    row_params: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Parameters of the requests with `rows`; an older version gets those that it knows."""
    initialise: Callable[[nn.Module, S, P, Sources], Collection[str]] | None = None
    """Loads what the parameters name or computes weights from the training split; returns the names of the loaded
    weights, which `train.init.freeze` freezes. None: load tensors with equal names and shapes."""
    attach: Callable[[nn.Module, P, Sources], None] | None = None
    """Gives a new or saved network what it needs of the versions and files that parameters of the section `train`
    name besides the initial weights, such as another network; that is no part of its own weights. None: nothing."""
    train_batches: Callable[[S, P, Shard], Batches] | None = None
    """Returns a shard of the training split's batches; every worker gets an equal part of each batch. None:
    shuffled, and bucketed by length if the split has lengths."""
    eval_batches: Callable[[S, int], Batches] | None = None
    """Divides a split into batches of a given size in a fixed order, each sample once. None: in split order."""
    subset: Callable[[S, int], S] | None = None
    """Returns a split with at most the given number of samples, for validation. None: evenly spaced samples."""
    augment: Callable[[Batch, P], Batch] | None = None
    """Augments a whole batch on the training device, drawing from the default generator. None: no augmentation."""
    calibrate: Callable[[nn.Module, Iterable[Batch], P], None] | None = None
    """Sets buffers of the trained network, such as decision thresholds, from its predictions on the validation
    split, in its order. Called once, with the best weights, before they are saved as the model's. None: nothing to
    set."""
    further_scores: Callable[[Manifest], Sequence[Score]] | None = None
    """Returns further metrics that can be computed from `outcomes`, so that they get an interval; a metric of a
    group is named `<metric>/<group>`. None: only the score has one."""
    further_metrics: Callable[[Iterable[Batch], Prepared, Sources, Answering], dict[str, float]] | None = None
    """Computes further metrics from the predictions on the test split and from what parameters of the section
    `evaluate` name, such as a published network or a registered version, whose answers the last argument gives;
    called if they name any. None: there are none."""
    baselines: Callable[[Prepared, P], Mapping[str, Outcomes]] | None = None
    """By name: the outcomes, on the test split, of simple or well-known methods that learn from the same training
    and validation splits. Each metric that can be computed from outcomes is also given for them, as
    `<metric>_of_<baseline>`, and the gate can demand that a version beats them. None: there are none."""
    metrics: Callable[[Mapping[str, Tensor], int], dict[str, float]] | None = None
    """Computes metrics, among them `loss`, from the sums on the CPU and their count. None: each sum divided by the
    count."""
    teach: Callable[[P, Manifest, Mapping[str, float], Path], P] | None = None
    """Returns the parameters with which `initialise` makes a version know the classes of a raw folder without an
    update, given those, the manifest and the metrics of the trained version. None: versions can only be trained."""
    draw: Callable[[Row, Row], bytes] | None = None
    """Draws an answer on its row of a request, as a PNG. None: answers have no picture."""
    snapshot: Callable[[nn.Module, Manifest, P, Path], None] | None = None
    """Writes a PNG of what the network makes, such as samples, after each validation. None: there are none."""
    tags: Callable[[Prepared], Mapping[str, str]] | None = None
    """Returns tags of the run and the version, such as the hash of a network by which the score is measured. None:
    there are none."""
    unit: str = "samples"
    """What `StepOutput.count` counts, in the plural: the unit of the speed that lines and metrics show."""
