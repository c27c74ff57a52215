"""The contenders of a comparison: the product, and its alternatives."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cases import KINDS, case_of, model_of, values_of
from components import tasks
from components.adapters import mlflow_store
from components.contracts import Batch, Event, Shard
from components.datasets.batches import shuffled
from components.stages import prepare, train
from components.training import device, inference

CPU = torch.device("cpu")


@dataclass
class Clock:
    """Counts samples, seconds and losses, except in the first epoch, in which kernels are selected."""

    samples: int = 0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()
    started: float = 0.0

    def begin(self, epoch: int) -> None:
        """Start counting an epoch."""
        self.samples, self.losses, self.started = (self.samples if epoch > 1 else 0), (), time.monotonic()

    def end(self, epoch: int) -> None:
        """Add the duration of an epoch, unless it was the first."""
        self.seconds += time.monotonic() - self.started if epoch else 0.0

    def epochs(self, number: int) -> Iterator[int]:
        """Yield the numbers of the epochs, counting each."""
        for epoch in range(number):
            self.begin(epoch)
            yield epoch
            self.end(epoch)

    def note(self, samples: int, loss: Tensor) -> None:
        """Count a batch."""
        self.samples += samples
        self.losses += (float(loss.detach()),)

    @property
    def result(self) -> dict[str, float]:
        """Samples per second, and the mean loss of the last epoch's batches."""
        return {"rate": self.samples / self.seconds, "loss": statistics.mean(self.losses)}


def plain(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train with an fp32 loop over a DataLoader, as in a tutorial."""
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
    return clock.result


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
    return clock.result


def lightning(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train with Lightning's Trainer and its defaults: a progress bar, a logger, a checkpoint per epoch."""
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
    return clock.result


def by_hand(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train with the fastest loop that we can write: our optimizations, without logging and checkpoints."""
    task, values, prepared, clock = tasks.load(name), values_of(name, seed), prepare.load(folder / name), Clock()
    precision = device.precision_on(CPU, values.train.precision)
    torch.manual_seed(seed)
    model = inference.placed(task.build_model(values, prepared.manifest), CPU).train()
    chosen = values.train.optimizer
    optimizer = torch.optim.AdamW(model.parameters(), chosen.lr, weight_decay=chosen.weight_decay, fused=True)
    split = task.load_split(prepared.folder, "train")
    for epoch in clock.epochs(values.train.epochs):
        batches, carry = (task.train_batches or shuffled)(split, values, Shard(epoch)), Batch()
        for index in range(len(batches)):
            batch = device.to_device(batches[index], CPU) | carry
            batch = task.augment(batch, values) if task.augment else batch
            with device.autocast(CPU, precision):
                output = task.step(model, batch, values)
            loss = output.loss / output.count
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            carry = output.carry
            clock.note(int(output.count), loss)
    return clock.result


def ours(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Train with the train stage: a Ray worker, MLflow, checkpoints, validation and progress."""
    epochs = list[tuple[float, dict[str, float]]]()

    def listen(event: Event) -> None:
        if event["kind"] == "validation":
            epochs.append((time.monotonic(), event["metrics"]))

    with tempfile.TemporaryDirectory() as scratch:
        mlflow_store.connect(Path(scratch))
        prepared = prepare.load(folder / name)
        train.train(model_of(name, seed), prepared, Path(scratch, "model"), listeners=[listen])
    rows, speed = [metrics for _, metrics in epochs], f"speed/{tasks.load(name).unit}_per_second"
    seconds = [metrics["speed/seconds_of_training"] for metrics in rows]
    samples = sum(
        metrics[speed] * (after - before)
        for metrics, before, after in zip(rows[1:], seconds, seconds[1:], strict=False)
    )
    return {
        # Within epochs, as for the other contenders, which do not validate. Logging, progress and timed checkpoints
        # are included; `whole`, on the wall clock, also includes validation and the checkpoint after each epoch.
        "rate": samples / (seconds[-1] - seconds[0]),
        "whole": samples / (epochs[-1][0] - epochs[0][0]),
        "loss": rows[-1]["train/loss"],
        "share_of_peak": rows[-1]["speed/share_of_peak"],
    }


CONTENDERS = {
    "Pedigree": ours,
    "by hand": by_hand,
    "plain loop": plain,
    "Lightning": lightning,
    "Accelerate": accelerated,
}
"""The contenders by name; the first is compared with the others."""
