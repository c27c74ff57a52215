"""Who trains in a comparison: the product, and what people would use instead of it."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cases import KINDS, ROOT, case_of, values_of
from components import tasks
from components.adapters import mlflow_store
from components.contracts import Batch, Event, Plan
from components.stages import prepare, train
from components.stages.origin import Origin
from components.training import device, inference

CPU = torch.device("cpu")


@dataclass
class Clock:
    """Counts samples, seconds and losses; the first epoch, in which kernels are chosen, is not counted."""

    samples: int = 0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()
    started: float = 0.0

    def begin(self, epoch: int) -> None:
        """Begin to count an epoch."""
        self.samples, self.losses, self.started = (self.samples if epoch > 1 else 0), (), time.monotonic()

    def end(self, epoch: int) -> None:
        """Count what an epoch took, unless it was the first."""
        self.seconds += time.monotonic() - self.started if epoch else 0.0

    def epochs(self, number: int) -> Iterator[int]:
        """Give the epochs by number."""
        for epoch in range(number):
            self.begin(epoch)
            yield epoch
            self.end(epoch)

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

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.learner = case.learner

        def on_train_epoch_start(self) -> None:
            case.learner.state = None
            clock.begin(self.current_epoch)

        def on_train_epoch_end(self) -> None:
            clock.end(self.current_epoch)  # before the checkpoint

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            loss = self.learner(batch)
            clock.note(KINDS[name].samples(batch), loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return case.optimizer

    with tempfile.TemporaryDirectory() as scratch:
        Trainer(max_epochs=case.params.train.epochs, accelerator="cpu", default_root_dir=scratch).fit(
            Module(), case.loader
        )
    return clock.found


def by_hand(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train with the best loop we can write: what makes ours fast, and nothing of what it keeps."""
    task, values, prepared, clock = tasks.load(name), values_of(name, seed), prepare.load(folder / name), Clock()
    precision = device.precision_on(CPU, values.train.precision)
    torch.manual_seed(seed)
    model = inference.placed(task.build_model(values, prepared.manifest), CPU).train()
    chosen = values.train.optimizer
    optimizer = torch.optim.AdamW(model.parameters(), chosen.lr, weight_decay=chosen.weight_decay, fused=True)
    split = task.load_split(prepared.folder, "train")
    for epoch in clock.epochs(values.train.epochs):
        batches, carry = task.train_batches(split, values, Plan(epoch)), Batch()
        for index in range(len(batches)):
            batch = device.to_device(batches[index], CPU) | carry
            with device.autocast(CPU, precision):
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
    told = [metrics for _, metrics in epochs]
    seconds = [metrics["speed/seconds_of_training"] for metrics in told]
    samples = sum(
        metrics["speed/samples_per_second"] * (after - before)
        for metrics, before, after in zip(told[1:], seconds, seconds[1:], strict=False)
    )
    return {
        # Inside epochs, as of the others, who validate nothing: logging, progress, checkpoints by time are in it.
        # By the clock on the wall validation and the checkpoint of an epoch's end count, too.
        "rate": samples / (seconds[-1] - seconds[0]),
        "whole": samples / (epochs[-1][0] - epochs[0][0]),
        "loss": told[-1]["train/loss"],
        "share_of_peak": told[-1]["speed/share_of_peak"],
    }


CONTENDERS = {
    "Pedigree": ours,
    "by hand": by_hand,
    "plain loop": plain,
    "Lightning": lightning,
    "Accelerate": accelerated,
}
"""The first is compared with the others."""
