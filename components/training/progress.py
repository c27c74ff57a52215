"""Progress of a training: a live line on a terminal, and plain lines in the log."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console  # noqa: TID251 - shows a model's name and numbers
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from components.contracts import Event

log = logging.getLogger("pedigree.train")
QUIET_SECONDS = 15
"""Time between two plain lines within an epoch, if there is no live line."""


class Progress:
    """Shows epoch, loss, metrics, speed and remaining time while the block runs."""

    def __init__(self, name: str, unit: str) -> None:
        self._name, self._unit = name, unit
        self._bar: Bar | None = None
        self._line: TaskID | None = None
        self._reported = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._line = self._bar.add_task(self._name, total=1.0, text="starting workers")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Show one event of the training."""
        if event["kind"] == "validation":
            log.info("%s %s", self._name, validation_line(event, self._unit))
        elif event["kind"] != "progress":
            return
        elif self._bar is not None and self._line is not None:
            self._bar.update(self._line, completed=event["share"], text=progress_line(event, self._unit))
        elif time.monotonic() - self._reported > QUIET_SECONDS:
            self._reported = time.monotonic()
            log.info("%s %s", self._name, progress_line(event, self._unit))


def progress_line(event: Event, unit: str) -> str:
    """Return the line for an event within an epoch; `unit` is that of the task."""
    remaining = time.strftime("%H:%M:%S", time.gmtime(event["seconds_left"]))
    return (
        f"epoch {event['epoch']}/{event['epochs']}  loss {event['loss']:.4f}  "
        f"{event['per_second']:,.0f} {unit}/s  {remaining} left"
    )


def validation_line(event: Event, unit: str) -> str:
    """Return the line for a validation: `epoch 3/8  train/loss 0.6100  val/loss 0.4100  2,345 samples/s`."""
    metrics = event["metrics"]
    shown = [f"{name} {value:.4f}" for name, value in metrics.items() if name.startswith(("train/loss", "val/"))]
    speed = f"speed/{unit}_per_second"
    rate = [f"{metrics[speed]:,.0f} {unit}/s"] if speed in metrics else []  # none without updates
    return "  ".join([f"epoch {metrics['epoch']:.3g}/{event['epochs']}", *shown, *rate])
