"""The cases of a comparison: each task's network, and its data in batches, as in a tutorial."""

import json
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

from components import models, tasks
from components.contracts import Batch
from components.datasets.splits import Columns
from components.images.embedded.scenes import SOURCES, write_scenes
from components.models import Model
from components.params import TaskParams
from components.stages import prepare

ROOT = Path(__file__).parents[1]
WINDOW = 64
"""Tokens per stream and batch."""

CHECKPOINT_SECONDS = 5
"""Seconds between checkpoints: less than the default of 20, so that measured epochs include checkpoints."""

SAME = (
    "train.workers=1",
    "train.accumulate=1",
    "train.optimizer={name: adamw, lr: 1.0e-3, momentum: 0.9, weight_decay: 0.01}",
    "train.schedule={name: constant, warmup: 0}",
    "train.clip_norm=0",
    "train.average.name=none",
    "train.validation={every: 0, samples: 0}",
    "train.best_metric=loss",
    f"train.checkpoint_seconds={CHECKPOINT_SECONDS}",
)
"""Settings that all contenders share."""


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images that are transformed one at a time, as in tutorials."""

    def __init__(self, split: Columns, facts: dict[str, Any]) -> None:
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
    """Clips without transforms: the network computes and masks their spectrograms."""

    def __init__(self, split: Columns) -> None:
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
        """Return tokens (B, T) and the token after each of them."""
        first = index * self.window
        last = min(first + self.window, self.streams.shape[1] - 1)
        return self.streams[:, first:last], self.streams[:, first + 1 : last + 1]


class Rows(Dataset[Batch]):
    """The columns of each sample, such as an image with its label, boxes or mask, without transforms."""

    def __init__(self, split: Columns) -> None:
        self.columns = {**split.dense, **split.ragged}
        self.samples = len(split)

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.samples

    def __getitem__(self, index: int) -> Batch:
        """Return one sample."""
        return {name: rows[index] for name, rows in self.columns.items()}


def with_boxes(items: list[Batch]) -> Batch:
    """Make a batch of images (H, W, 3) with their boxes (N, 6)."""
    return {
        **padded(items),
        "image_size": torch.tensor([item["image"].shape[:2] for item in items]),
        "boxes_length": torch.tensor([len(item["boxes"]) for item in items]),
    }


def with_lengths(items: list[Batch]) -> Batch:
    """Make a batch of rows that differ in length, as `Columns` does."""
    ragged = [name for name, row in items[0].items() if row.ndim]
    lengths = {f"{name}_length": torch.tensor([len(item[name]) for item in items]) for name in ragged}
    return padded(items) | lengths


def padded(items: list[Batch]) -> Batch:
    """Pad each column to the largest of a batch."""
    return {name: _stacked([item[name] for item in items]) for name in items[0]}


def _stacked(rows: list[Tensor]) -> Tensor:
    largest = [max(sizes) for sizes in zip(*(row.shape for row in rows), strict=True)]
    whole = rows[0].new_zeros(len(rows), *largest)
    for place, row in zip(whole, rows, strict=True):
        place[tuple(map(slice, row.shape))] = row
    return whole


class Learner(nn.Module):
    """A network with its loss; a recurrent one continues from the final state of the batch before."""

    def __init__(
        self, network: nn.Module, recurrent: bool, loss: Callable[[nn.Module, Batch], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.network, self.recurrent, self.loss = network, recurrent, loss
        self.state: Batch | None = None

    def forward(self, batch: Any) -> Tensor:
        """Return the mean loss of a batch: `loss`, or that of a classifier in nats."""
        if self.loss is not None:
            return self.loss(self.network, batch)
        inputs, targets = batch
        if not self.recurrent:
            return F.cross_entropy(self.network(inputs), targets)
        logits, state = self.network(inputs, self.state)
        self.state = {name: part.detach() for name, part in state.items()}
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@dataclass(frozen=True)
class Case:
    """A network with its data."""

    params: TaskParams
    learner: Learner
    loader: DataLoader[Any]

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return torch's AdamW for the network's parameters."""
        chosen = self.params.train.optimizer
        return torch.optim.AdamW(self.learner.parameters(), chosen.lr, weight_decay=chosen.weight_decay)


def some_files(raw: Path, out: Path, share: float) -> None:
    """Copy a share of the files in each folder."""
    for folder, _, names in os.walk(raw):
        target = out / Path(folder).relative_to(raw)
        target.mkdir(parents=True)
        for name in sorted(names)[: math.ceil(share * len(names))]:
            shutil.copyfile(Path(folder, name), target / name)


def some_drives(raw: Path, out: Path, share: float) -> None:
    """Copy a share of the drives of each split, and what describes them."""
    some_files(raw, out, share)
    shutil.copyfile(raw / "scenario.json", out / "scenario.json")


def some_scenes(raw: Path, out: Path, share: float) -> None:
    """Write the first share of the composed scenes of each split."""
    write_scenes(out, {split: math.ceil(share * source.scenes) for split, source in SOURCES.items()})


def some_text(raw: Path, out: Path, share: float) -> None:
    """Copy the first share of each text."""
    out.mkdir()
    for file in raw.iterdir():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        (out / file.name).write_text("".join(lines[: math.ceil(share * len(lines))]), encoding="utf-8")


def some_questions(raw: Path, out: Path, share: float) -> None:
    """Copy the first share of each article in SQuAD's format."""
    out.mkdir()
    for file in raw.glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        for article in content["data"]:
            article["paragraphs"] = article["paragraphs"][: math.ceil(share * len(article["paragraphs"]))]
        (out / file.name).write_text(json.dumps(content), encoding="utf-8")


@dataclass(frozen=True)
class Kind:
    """How a task is measured."""

    settings: tuple[str, ...]
    """Changes to params.yaml."""
    unit: str
    cut: Callable[[Path, Path, float], None]
    """Copies a share of the raw data."""
    share: float
    """Share of the data per 100 GFLOP/s of the machine, or for 200 if it is slower, so that epochs take seconds."""
    samples: Callable[[Any], int]
    """Counts the samples of a batch."""
    data: Callable[[Columns, dict[str, Any], Any], Dataset[Any]]
    batched: bool = False
    """Whether the items of the data are consecutive batches, between which the state carries over."""
    part: str | None = None
    """The submodule of the network to train, if the dataset's transforms replace the rest."""
    collate: Callable[[list[Any]], Batch] | None = None
    """Makes a batch of items; None: stacks them."""
    step: bool = False
    """Whether the loss is the task's own, over its count, and not a classifier's cross-entropy."""


KINDS = {
    "image_classification": Kind(
        settings=(
            "prepare.size=32",
            "train.label_smoothing=0",
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
    "image_generation": Kind(
        settings=("train.epochs=3", "prepare.classifier_updates=1"),
        unit="images",
        cut=some_files,
        share=0.1,
        samples=lambda batch: len(batch["image"]),
        data=lambda split, *_: Rows(split),
        step=True,
    ),
    "language_model": Kind(
        settings=("train.epochs=2", "train.label_smoothing=0", f"train.window={WINDOW}", "train.dropout.output=0"),
        unit="tokens",
        cut=some_text,
        share=0.02,
        samples=lambda batch: batch[1].numel(),
        data=lambda split, _, values: Windows(split["tokens"], values.train.batch_size, WINDOW),
        batched=True,
    ),
    "driving": Kind(
        settings=("train.epochs=3",),
        unit="samples",
        cut=some_drives,
        share=0.5,
        samples=lambda batch: len(batch["change"]),
        data=lambda split, *_: Rows(split),
        step=True,
    ),
    "object_detection": Kind(
        settings=(
            "train.epochs=3",
            "train.augment={flip: false, flip_vertical: false, turn: false, scale: 1, colour: 0}",
        ),
        unit="boxes",
        cut=some_scenes,
        share=0.1,
        samples=lambda batch: int(batch["boxes_length"].sum()),
        data=lambda split, *_: Rows(split),
        collate=with_boxes,
        step=True,
    ),
    "question_answering": Kind(
        settings=("train.epochs=3", "train.model.dropout=0"),
        unit="windows",
        cut=some_questions,
        share=0.2,
        samples=lambda batch: len(batch["start"]),
        data=lambda split, *_: Rows(split),
        collate=with_lengths,
        step=True,
    ),
    "segmentation": Kind(
        settings=(
            "train.epochs=3",
            "train.augment={flip: false, turns: false, scale: 1, colour: 0}",  # a crop is then a whole scene
        ),
        unit="pixels",
        cut=some_scenes,
        share=0.1,
        samples=lambda batch: int((batch["mask"] > 0).sum()),
        data=lambda split, *_: Rows(split),
        collate=padded,
        step=True,
    ),
    "spoken_words": Kind(
        settings=(
            "train.epochs=3",
            "train.label_smoothing=0",
            "train.augment={shift: 0, speed: 0, stretch: 0, equaliser: 0, snr: null, "
            "frequency_mask: 8, time_mask: 20}",
        ),
        unit="clips",
        cut=some_files,
        share=0.3,
        samples=lambda batch: len(batch[0]),
        data=lambda split, *_: Clips(split),
    ),
    "tabular": Kind(
        settings=("train.epochs=3", "train.patience=0", "train.unseen=0", "train.model.dropout=0"),
        unit="rows",
        cut=some_text,
        share=0.5,
        samples=lambda batch: len(batch["label"]),
        data=lambda split, *_: Rows(split),
        step=True,
    ),
    "text_classification": Kind(
        settings=("train.epochs=3", "train.label_smoothing=0", "train.model.dropout=0"),
        unit="texts",
        cut=some_text,
        share=0.5,
        samples=lambda batch: len(batch["label"]),
        data=lambda split, *_: Rows(split),
        collate=with_lengths,
        step=True,
    ),
    "speech_to_text": Kind(
        settings=(
            "train.epochs=3",
            "train.augment={speed: 0, snr: null, frequency_mask: 8, time_mask: 10}",
        ),
        unit="tokens",
        cut=some_files,
        share=0.1,
        samples=lambda batch: int(batch["target_length"].sum()),
        data=lambda split, *_: Rows(split),
        collate=with_lengths,
        step=True,
    ),
    "speech_synthesis": Kind(
        settings=("train.epochs=3",),
        unit="frames",
        cut=some_files,
        share=0.3,
        samples=lambda batch: int(batch["pitch_length"].sum()),
        data=lambda split, *_: Rows(split),
        collate=with_lengths,
        step=True,
    ),
    "translation": Kind(
        settings=("train.epochs=3",),
        unit="tokens",
        cut=some_text,
        share=0.2,
        samples=lambda batch: int(batch["target_length"].sum()),
        data=lambda split, *_: Rows(split),
        collate=with_lengths,
        step=True,
    ),
}


MODELS = {
    "driving": "highway",
    "few_shot": "glyphs",
    "image_classification": "digits",
    "image_generation": "made-digits",
    "language_model": "docstrings",
    "object_detection": "scenes",
    "question_answering": "docstring-qa",
    "segmentation": "scene-masks",
    "speech_synthesis": "voice",
    "speech_to_text": "commands",
    "spoken_words": "words",
    "tabular": "disease",
    "text_classification": "topics",
    "translation": "interface-fr",
}
"""For each task, the model of params.yaml whose parameters and data set are used."""


def model_of(name: str, seed: int, *more: str) -> Model:
    """Return a task's model with the parameters shared by all contenders, changed by the settings `more`."""
    return models.load(ROOT, MODELS[name], settings=(*SAME, *KINDS[name].settings, f"train.seed={seed}", *more))


def values_of(name: str, seed: int, *more: str) -> TaskParams:
    """Return the parameters of `model_of`."""
    return model_of(name, seed, *more).params


def case_of(name: str, folder: Path, seed: int) -> Case:
    """Return a randomly initialised network, and its data in batches, as in a tutorial."""
    kind, task, values = KINDS[name], tasks.load(name), values_of(name, seed)
    prepared = prepare.load(folder / name)
    split = task.load_split(prepared.folder, "train")
    torch.manual_seed(seed)
    network = task.build_model(values, prepared.manifest)
    network = network.get_submodule(kind.part) if kind.part else network
    data = kind.data(split, prepared.manifest.facts, values)
    size = None if kind.batched else values.train.batch_size
    whole = not kind.batched
    loader = DataLoader(data, batch_size=size, shuffle=whole, drop_last=whole, collate_fn=kind.collate)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = task.step(model, batch, values)
        return output.loss / output.count

    return Case(values, Learner(network, kind.batched, loss if kind.step else None), loader)
