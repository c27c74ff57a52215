"""python -m benchmarks.inference: throughput of evaluation on a test split, compared with the bare network.

Both take turns in one process, which retains freed memory as our workers do. Evaluation gathers batches, computes,
writes predictions to files and reads them; the network alone runs on the same inputs in memory. The data are those
of `pedigree data`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import report
from benchmarks.cases import KINDS, model_of
from benchmarks.contenders import CPU
from components.runtime import processes
from components.stages import prepare
from components.training import inference

SECONDS = 3.0
"""Minimum duration of each measurement, in complete passes."""


def inputs_of(network: nn.Module, passing: Callable[[], object]) -> list[tuple[Any, ...]]:
    """Return the arguments of each call of the network during a pass over the split."""
    inputs: list[tuple[Any, ...]] = []
    with network.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments)):
        passing()
    return inputs


def seconds_of(call: Callable[[], object]) -> float:
    """Return the average seconds of a call."""
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        call()
        calls += 1
    return (time.perf_counter() - started) / calls


def measured(name: str, scratch: Path, rounds: int) -> dict[str, Any]:
    """Return the samples per second of both in each round, for a task's network with random weights."""
    chosen = model_of(name, 0)
    task, values = chosen.task, chosen.params
    prepared = prepare.prepare(chosen, chosen.raw, scratch / name)
    model = inference.placed(task.build_model(values, prepared.manifest), CPU)
    split = task.load_split(prepared.folder, "test")
    samples = prepared.manifest.splits["test"].samples
    folder = scratch / f"{name} predictions"
    folder.mkdir()

    def evaluation() -> None:
        for _ in inference.predict(task, values, model, split, CPU, folder):
            pass

    inputs = inputs_of(model, evaluation)

    @torch.inference_mode()
    def bare() -> None:
        for arguments in inputs:
            model(*arguments)

    found: dict[str, list[float]] = {"evaluation": [], "bare network": []}
    for number in range(rounds):
        for what, call in (("evaluation", evaluation), ("bare network", bare)):
            found[what].append(samples / seconds_of(call))
            print(f"{name}, round {number + 1}, {what}: {found[what][-1]:.0f} {KINDS[name].unit}/s", flush=True)
    return {"unit": KINDS[name].unit, "samples": samples, "rates": found}


def main() -> None:
    """Measure each task, and record the results for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    options = parser.parse_args()
    if not processes.MEMORY.items() <= os.environ.items():  # glibc reads it when a process starts
        command = [sys.executable, "-m", __spec__.name, *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env=os.environ | processes.MEMORY, check=False).returncode)
    with tempfile.TemporaryDirectory() as scratch:
        report.record("inference", {"tasks": {n: measured(n, Path(scratch), options.rounds) for n in KINDS}})


if __name__ == "__main__":
    main()
