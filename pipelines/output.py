"""What commands print: on streams that a process can always write to, with control characters escaped."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

import typer

from components.display import printable

RUNS = ("prefect.flow_runs", "prefect.task_runs")
"""Prefect's loggers of what happens in a run."""


def echo(text: str, err: bool = False) -> None:
    """Print a line, on standard error if `err`."""
    typer.echo(printable(text), err=err)  # noqa: TID251 - escaped


def keep_writable() -> None:
    """Let output go nowhere once nobody reads it, instead of failing whatever writes it.

    Prefect's serving process reads a flow's output through a pipe, and the flow survives it.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Writable):
            setattr(sys, name, _Writable(stream))


class _Writable:
    """A text stream that is redirected to /dev/null when its reader is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._redirect()
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._redirect()

    def _redirect(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
