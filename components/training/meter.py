"""Progress and speed of a training, relative to the device's peak."""

import time
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from components.contracts import Shard, Split, Task, Worker
from components.datasets.batches import shuffled
from components.params import TaskParams
from components.training.device import flops, peak_flops, precision_on, to_device
from components.training.inference import copied
from components.training.sums import Sums

QUIET_SECONDS = 0.5
"""Least time between two progress events, as reading the loss waits for the device."""


@dataclass
class Progress:
    """Reports progress within one epoch."""

    worker: Worker
    epoch: int
    epochs: int
    begin: float = 0.0
    """Share of the epoch that was complete when this process resumed."""
    updates: int = 0
    started: float = field(default_factory=time.monotonic)
    reported: float = 0.0

    def report(self, done: float, sums: Sums) -> None:
        """Report an update, after which the share `done` of the epoch is complete."""
        self.updates += 1
        now = time.monotonic()
        if self.worker.rank or now - self.reported < QUIET_SECONDS:
            return
        self.reported = now
        seconds = max(now - self.started, 1e-9)
        self.worker.emit(
            {
                "kind": "progress",
                "epoch": self.epoch + 1,
                "epochs": self.epochs,
                "share": (self.epoch + done) / self.epochs,
                "loss": sums.mean_loss(),
                "per_second": float(sums.count) * self.worker.world * self.updates / seconds,
                "seconds_left": (self.epochs - self.epoch - done) * seconds / (done - self.begin),
            }
        )


@dataclass(frozen=True)
class Speed:
    """The cost of what a step counts, and the peak of the device, both measured before training starts."""

    unit: str
    """What a step counts, such as samples or tokens."""
    flops_each: float
    """FLOPs of forward and backward pass for each of them, padding included."""
    peak: float
    """FLOP/s of all workers."""

    @classmethod
    def measure(
        cls, task: Task[Any, Any], params: TaskParams, model: nn.Module, split: Split, worker: Worker
    ) -> "Speed":
        """Count the operations of one step on a copy of the model, and measure the device's peak."""
        copy = copied(model).train()
        batch = {
            name: tensor[:2] for name, tensor in (task.train_batches or shuffled)(split, params, Shard())[0].items()
        }
        counts: list[float] = []

        def forward_and_backward() -> None:
            output = task.step(copy, to_device(batch, worker.device), params)
            output.loss.backward()
            counts.append(float(output.count))

        cost = flops(forward_and_backward)
        precision = precision_on(worker.device, params.train.precision)
        return cls(task.unit, cost / max(counts[0], 1), worker.world * peak_flops(worker.device, precision))

    def of(self, count: int, seconds: float) -> dict[str, float]:
        """Return the speed metrics of an epoch whose steps counted `count`."""
        rate = count / seconds
        return {f"speed/{self.unit}_per_second": rate, "speed/share_of_peak": rate * self.flops_each / self.peak}
