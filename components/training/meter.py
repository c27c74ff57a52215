"""How far a training is, and how fast it goes for what the device can give."""

import time
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from components.contracts import Batch, Plan, Task, Workers
from components.params import TaskParams
from components.training.device import flops, peak_flops, precision_on, to_device

QUIET_SECONDS = 0.5
"""Between two events inside an epoch: reading the loss waits for the device."""


@dataclass
class Progress:
    """Tells of the progress inside one epoch."""

    workers: Workers
    epoch: int
    epochs: int
    begun: float = 0.0
    """Share of the epoch that was over before."""
    samples: int = 0
    started: float = field(default_factory=time.monotonic)
    told: float = 0.0

    def tell(self, done: float, sums: dict[str, Tensor], count: int) -> None:
        """Tell of the update just made, after which the share `done` of the epoch is over."""
        self.samples += count * self.workers.world
        now = time.monotonic()
        if self.workers.rank or now - self.told < QUIET_SECONDS:
            return
        self.told = now
        seconds = max(now - self.started, 1e-9)
        self.workers.emit(
            {
                "kind": "progress",
                "epoch": self.epoch + 1,
                "epochs": self.epochs,
                "share": (self.epoch + done) / self.epochs,
                "loss": float(sums["loss"]) / count,
                "samples_per_second": self.samples / seconds,
                "seconds_left": (self.epochs - self.epoch - done) * seconds / (done - self.begun),
            }
        )


@dataclass(frozen=True)
class Speed:
    """What a sample costs and what the device can give, both measured before training starts."""

    flops_a_sample: float
    """Forward and backward."""
    peak: float
    """FLOP/s over all workers."""

    @classmethod
    def measure(
        cls, task: Task[Any], params: TaskParams, model: nn.Module, split: Batch, workers: Workers
    ) -> "Speed":
        """Count the operations of one step on a copy of the model, and measure the device's peak."""
        copy = deepcopy(model).train()
        batch = {name: tensor[:2] for name, tensor in task.train_batches(split, params, Plan())[0].items()}
        counts: list[int] = []

        def forward_and_backward() -> None:
            output = task.step(copy, to_device(batch, workers.device), params)
            output.loss.backward()
            counts.append(output.count)

        cost = flops(forward_and_backward)
        precision = precision_on(workers.device, params.train.precision)
        return cls(cost / counts[0], workers.world * peak_flops(workers.device, precision))

    def of(self, samples: int, seconds: float) -> dict[str, float]:
        """Return what an epoch reached."""
        rate = samples / seconds
        return {"speed/samples_per_second": rate, "speed/share_of_peak": rate * self.flops_a_sample / self.peak}
