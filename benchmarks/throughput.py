"""python -m benchmarks.throughput: samples a second of training, through the product and as people do it else.

The same network, data, batch, optimizer and number of updates for all, each time in a process of its own, one after
the other (A B C A B C ...), and the loss that each comes to. The data are those of `pedigree data`.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks import report
from components import params, tasks
from components.adapters import mlflow_store
from components.contracts import Batch, Event, Plan, Prepared
from components.params import TaskParams
from components.stages import prepare, train
from components.stages.origin import Origin
from components.training import device, inference

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
WINDOW = 64
"""Tokens of a stream in a batch."""

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

    name: str
    params: TaskParams
    prepared: Prepared
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
    cut: Callable[[Path, Path], None]
    """Copies a share of the raw data that takes every contender seconds an epoch."""
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
            "train.epochs=3",
            "train.batch_size=64",
            "train.model.width=1.0",
            "train.augment={crop: 4, flip: true, mix: none, mix_alpha: 0.2}",
        ),
        unit="images",
        cut=partial(some_files, share=0.2),
        samples=lambda batch: len(batch[0]),
        data=lambda split, facts, _: Images(split, facts),
        part="resnet",
    ),
    "language": Kind(
        settings=("train.epochs=3", f"train.window={WINDOW}", "train.dropout.output=0"),
        unit="tokens",
        cut=partial(some_text, share=0.12),
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
        cut=partial(some_files, share=1),
        samples=lambda batch: len(batch[0]),
        data=lambda split, *_: Clips(split),
    ),
}


def values_of(name: str, seed: int) -> TaskParams:
    """Return the parameters that all contenders train with."""
    written = params.read(ROOT / params.FILE)
    for setting in (*SAME, *KINDS[name].settings, f"train.seed={seed}"):
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
    return Case(name, values, prepared, Learner(network, kind.batched), loader)


@dataclass
class Clock:
    """Counts samples, seconds and losses; the first epoch, in which kernels are chosen, is not counted."""

    samples: int = 0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()

    def epochs(self, number: int) -> Iterator[int]:
        """Give the epochs by number, and count all but the first."""
        for epoch in range(number):
            self.samples, self.losses, started = (self.samples if epoch > 1 else 0), (), time.monotonic()
            yield epoch
            self.seconds += time.monotonic() - started if epoch else 0.0

    def note(self, samples: int, loss: Tensor) -> None:
        """Count a batch."""
        self.samples += samples
        self.losses += (float(loss.detach()),)

    @property
    def found(self) -> dict[str, float]:
        """Samples a second, and the mean loss of the last epoch's batches."""
        return {"rate": self.samples / self.seconds, "loss": statistics.mean(self.losses)}


def plain(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train with a loop in fp32 over a DataLoader, as a tutorial has it."""
    case, clock = case_of(name, folder, seed), Clock()
    optimizer = case.optimizer
    case.learner.train()
    for _ in clock.epochs(case.params.train.epochs):
        case.learner.state = None
        for batch in case.loader:
            optimizer.zero_grad()
            loss = case.learner(batch)
            loss.backward()
            optimizer.step()
            clock.note(KINDS[name].samples(batch), loss)
    return clock.found


def accelerated(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train with Hugging Face's Accelerate."""
    from accelerate import Accelerator

    case, clock, accelerator = case_of(name, folder, seed), Clock(), Accelerator(cpu=True)
    learner, optimizer, loader = accelerator.prepare(case.learner, case.optimizer, case.loader)
    learner.train()
    for _ in clock.epochs(case.params.train.epochs):
        case.learner.state = None
        for batch in loader:
            optimizer.zero_grad()
            loss = learner(batch)
            accelerator.backward(loss)
            optimizer.step()
            clock.note(KINDS[name].samples(batch), loss)
    return clock.found


def lightning(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train with Lightning's Trainer and its defaults: a progress bar, a logger, a checkpoint each epoch."""
    from lightning import LightningModule, Trainer

    case, clock = case_of(name, folder, seed), Clock()
    counted = clock.epochs(case.params.train.epochs + 1)

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.learner = case.learner

        def on_train_epoch_start(self) -> None:
            case.learner.state = None
            next(counted)

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            loss = self.learner(batch)
            clock.note(KINDS[name].samples(batch), loss)
            return loss

        def on_train_end(self) -> None:
            losses = clock.losses
            next(counted)  # ends the last epoch
            clock.losses = losses

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return case.optimizer

    with tempfile.TemporaryDirectory() as scratch:
        Trainer(max_epochs=case.params.train.epochs, accelerator="cpu", default_root_dir=scratch).fit(
            Module(), case.loader
        )
    return clock.found


def by_hand(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train with the best loop we can write: what makes ours fast, and nothing of what it keeps."""
    case, clock = case_of(name, folder, seed), Clock()
    task, values = tasks.load(name), case.params
    torch.manual_seed(seed)
    model = inference.placed(task.build_model(values, case.prepared.manifest), CPU).train()
    chosen = values.train.optimizer
    optimizer = torch.optim.AdamW(model.parameters(), chosen.lr, weight_decay=chosen.weight_decay, fused=True)
    split = task.load_split(case.prepared.folder, "train")
    for epoch in clock.epochs(values.train.epochs):
        batches, carry = task.train_batches(split, values, Plan(epoch)), Batch()
        for index in range(len(batches)):
            batch = device.to_device(batches[index], CPU) | carry
            with device.autocast(CPU, device.precision_on(CPU, values.train.precision)):
                output = task.step(model, task.augment(batch, values), values)
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            carry = output.carry
            clock.note(output.count, output.loss)
    return clock.found


def ours(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train by the train stage: a Ray worker, MLflow, checkpoints, validation, progress."""
    values, epochs = values_of(name, seed), list[tuple[float, dict[str, float]]]()

    def listen(event: Event) -> None:
        if event["kind"] == "epoch":
            epochs.append((time.monotonic(), event["metrics"]))

    with tempfile.TemporaryDirectory() as scratch:
        mlflow_store.connect(Path(scratch))
        prepared, task = prepare.load(folder / name), tasks.load(name)
        train.train(task, values, prepared, Path(scratch, "model"), Origin(ROOT), listeners=[listen])
    split = task.load_split(prepared.folder, "train")
    batches = task.train_batches(split, values, Plan())
    samples = sum(_count(batches[index]) for index in range(len(batches))) * (len(epochs) - 1)
    metrics = epochs[-1][1]
    return {
        # By the clock on the wall, from one epoch's end to another's: validation and checkpoints are in it.
        "rate": samples / (epochs[-1][0] - epochs[0][0]),
        "loss": metrics["train/loss"],
        "share_of_peak": metrics["speed/share_of_peak"],
    }


def _count(batch: Batch) -> int:
    return batch["target"].numel() if "target" in batch else len(batch["label"])


CONTENDERS = {
    "Pedigree": ours,
    "by hand": by_hand,
    "plain loop": plain,
    "Lightning": lightning,
    "Accelerate": accelerated,
}
"""The first is compared with the others."""


def measured(contender: str, name: str, folder: Path, seed: int) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--one", contender, name, str(folder), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender}, {name}:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure round by round, tell of each, and keep what was found for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(KINDS), help="of vision, language, speech")
    parser.add_argument("--rounds", type=int, default=5, help="each with a seed of its own")
    parser.add_argument("--one", nargs=4, metavar=("CONTENDER", "TASK", "FOLDER", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        contender, name, folder, seed = options.one
        print(json.dumps(CONTENDERS[contender](name, Path(folder), int(seed))))
        return
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.tasks:
            raw = Path(scratch, "raw", name)
            raw.parent.mkdir(exist_ok=True)
            KINDS[name].cut(ROOT / "data" / name, raw)
            prepare.prepare(tasks.load(name), values_of(name, 0), raw, Path(scratch, name))
            found: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
            for seed in range(options.rounds):
                for contender, rows in found.items():
                    rows.append(measured(contender, name, Path(scratch), seed))
                    console.print(f"{name}, round {seed + 1}, {contender}: {rows[-1]}", highlight=False)
            precision = device.precision_on(CPU, values_of(name, 0).train.precision)
            unit = KINDS[name].unit
            report.keep(f"{report.THROUGHPUT}{name}", {"unit": unit, "precision": precision, "contenders": found})


if __name__ == "__main__":
    main()
