"""What is trained in a comparison: each task's network, and its data a batch at a time, as a tutorial has them."""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from components import params, tasks
from components.contracts import Batch
from components.params import TaskParams
from components.stages import prepare

ROOT = Path(__file__).parents[1]
WINDOW = 64
"""Tokens of a stream in a batch."""

CHECKPOINT_SECONDS = 5
"""So that long epochs have checkpoints in what is measured; people have 20."""

SAME = (
    "train.workers=1",
    "train.accumulate=1",
    "train.optimizer={name: adamw, lr: 1.0e-3, momentum: 0.9, weight_decay: 0.01}",
    "train.schedule={name: constant, warmup: 0}",
    "train.clip_norm=0",
    "train.label_smoothing=0",
    "train.average.name=none",
    "train.best_metric=loss",
    "train.best_mode=min",
    f"train.checkpoint_seconds={CHECKPOINT_SECONDS}",
)
"""What every contender can be told in its own words."""


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Transforms an image at a time, as tutorials have them."""

    def __init__(self, split: Batch, facts: dict[str, Any]) -> None:
        self.images, self.labels = split["image"], split["label"]
        self.transform = v2.Compose(
            [
                v2.RandomCrop(facts["size"], padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(facts["mean"], facts["std"]),
            ]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one transformed image and its label."""
        return self.transform(self.images[index]), self.labels[index]


class Clips(Dataset[tuple[Tensor, Tensor]]):
    """Clips as they are: the network makes their spectrograms, and masks these."""

    def __init__(self, split: Batch) -> None:
        self.clips, self.labels = split["clip"], split["label"]

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one clip, float32, and its label."""
        return self.clips[index].float(), self.labels[index]


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Item i is window i of every stream, as in PyTorch's word_language_model."""

    def __init__(self, tokens: Tensor, streams: int, window: int) -> None:
        length = len(tokens) // streams
        self.streams, self.window = tokens[: streams * length].view(streams, length).long(), window

    def __len__(self) -> int:
        """Return the number of windows, the last of which may be shorter."""
        return math.ceil((self.streams.shape[1] - 1) / self.window)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T) and those after each of them."""
        first = index * self.window
        last = min(first + self.window, self.streams.shape[1] - 1)
        return self.streams[:, first:last], self.streams[:, first + 1 : last + 1]


class Learner(nn.Module):
    """A network with its loss; a recurrent one goes on from the state in which the batch before left it."""

    def __init__(self, network: nn.Module, recurrent: bool) -> None:
        super().__init__()
        self.network, self.recurrent = network, recurrent
        self.state: Batch | None = None

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean loss of a batch, in nats."""
        inputs, targets = batch
        if not self.recurrent:
            return F.cross_entropy(self.network(inputs), targets)
        logits, state = self.network(inputs, self.state)
        self.state = {name: part.detach() for name, part in state.items()}
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@dataclass(frozen=True)
class Case:
    """One network on its data."""

    params: TaskParams
    learner: Learner
    loader: DataLoader[Any]

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the parameters, as torch makes it."""
        chosen = self.params.train.optimizer
        return torch.optim.AdamW(self.learner.parameters(), chosen.lr, weight_decay=chosen.weight_decay)


def some_files(raw: Path, out: Path, share: float) -> None:
    """Copy a share of the files of each folder."""
    for folder, _, names in os.walk(raw):
        place = out / Path(folder).relative_to(raw)
        place.mkdir(parents=True)
        for name in sorted(names)[: math.ceil(share * len(names))]:
            shutil.copyfile(Path(folder, name), place / name)


def some_text(raw: Path, out: Path, share: float) -> None:
    """Copy the beginning of each text."""
    out.mkdir()
    for file in raw.iterdir():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        (out / file.name).write_text("".join(lines[: math.ceil(share * len(lines))]), encoding="utf-8")


@dataclass(frozen=True)
class Kind:
    """What of a task is measured."""

    settings: tuple[str, ...]
    """Over params.yaml."""
    unit: str
    cut: Callable[[Path, Path, float], None]
    """Copies a share of the raw data."""
    share: float
    """Of the data for each 100 GFLOP/s of the machine, and for 200 at least, so that an epoch takes seconds."""
    samples: Callable[[tuple[Tensor, Tensor]], int]
    """Counts them in a batch."""
    data: Callable[[Batch, dict[str, Any], TaskParams], Dataset[Any]]
    batched: bool = False
    """The items of the data are batches, in their order, whose state goes on."""
    part: str | None = None
    """Of the network, where the data does by itself what the rest does."""


KINDS = {
    "vision": Kind(
        settings=(
            "prepare.size=32",
            "prepare.channels=3",
            "train.epochs=2",
            "train.batch_size=64",
            "train.model.width=1.0",
            "train.augment={crop: 4, flip: true, mix: none, mix_alpha: 0.2}",
        ),
        unit="images",
        cut=some_files,
        share=0.03,
        samples=lambda batch: len(batch[0]),
        data=lambda split, facts, _: Images(split, facts),
        part="network",
    ),
    "language": Kind(
        settings=("train.epochs=2", f"train.window={WINDOW}", "train.dropout.output=0"),
        unit="tokens",
        cut=some_text,
        share=0.02,
        samples=lambda batch: batch[1].numel(),
        data=lambda split, _, values: Windows(split["tokens"], values.train.batch_size, WINDOW),
        batched=True,
    ),
    "speech": Kind(
        settings=(
            "train.epochs=3",
            "train.augment={shift: 0, speed: 0, stretch: 0, equaliser: 0, snr: null, "
            "frequency_mask: 8, time_mask: 20}",
        ),
        unit="clips",
        cut=some_files,
        share=0.3,
        samples=lambda batch: len(batch[0]),
        data=lambda split, *_: Clips(split),
    ),
}


def values_of(name: str, seed: int, *more: str) -> TaskParams:
    """Return the parameters that all contenders train with, and `more` settings over them."""
    written = params.read(ROOT / params.FILE)
    for setting in (*SAME, *KINDS[name].settings, f"train.seed={seed}", *more):
        written = params.assignment(setting, ("tasks", name)).over(written)
    return params.validate(tasks.load(name).params, written, ("tasks", name))


def case_of(name: str, folder: Path, seed: int) -> Case:
    """Return a network with random weights, and the data a batch at a time, as a tutorial has them."""
    kind, task, values = KINDS[name], tasks.load(name), values_of(name, seed)
    prepared = prepare.load(folder / name)
    split = task.load_split(prepared.folder, "train")
    torch.manual_seed(seed)
    network = task.build_model(values, prepared.manifest)
    network = network.get_submodule(kind.part) if kind.part else network
    data = kind.data(split, prepared.manifest.facts, values)
    size = None if kind.batched else values.train.batch_size
    loader = DataLoader(data, batch_size=size, shuffle=not kind.batched, drop_last=not kind.batched)
    return Case(values, Learner(network, kind.batched), loader)
