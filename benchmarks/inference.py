"""python -m benchmarks.inference: how fast evaluation goes through a test split, beside the bare network.

Both in one process, in turns, which keeps its memory as our workers do: what evaluation gathers, computes and puts
together again, and the network alone on the same inputs, which lie ready. The data are those of `pedigree data`.
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
from benchmarks.cases import KINDS, ROOT, values_of
from benchmarks.contenders import CPU
from components import processes, tasks
from components.stages import prepare
from components.training import inference

SECONDS = 3.0
"""At least, of each measurement, in whole passes."""


def inputs_of(network: nn.Module, passing: Callable[[], object]) -> list[tuple[Any, ...]]:
    """Return what the network is called with, call by call, while something goes over the split."""
    found: list[tuple[Any, ...]] = []
    with network.register_forward_pre_hook(lambda _, given: found.append(given)):
        passing()
    return found


def seconds_of(call: Callable[[], object]) -> float:
    """Return what a call takes on average."""
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        call()
        calls += 1
    return (time.perf_counter() - started) / calls


def measured(name: str, scratch: Path, rounds: int) -> dict[str, Any]:
    """Return samples a second of both, round by round, of a task's network with random weights."""
    task, values = tasks.load(name), values_of(name, 0)
    prepared = prepare.prepare(task, values, ROOT / "data" / name, scratch / name)
    model = inference.placed(task.build_model(values, prepared.manifest), CPU)
    split = task.load_split(prepared.folder, "test")
    samples = prepared.manifest.splits["test"].samples

    def evaluation() -> object:
        return inference.predict(task, model, split, CPU, values.evaluate.batch_size)

    inputs = inputs_of(model, evaluation)

    @torch.inference_mode()
    def bare() -> None:
        for given in inputs:
            model(*given)

    found: dict[str, list[float]] = {"evaluation": [], "bare network": []}
    for number in range(rounds):
        for what, call in (("evaluation", evaluation), ("bare network", bare)):
            found[what].append(samples / seconds_of(call))
            print(f"{name}, round {number + 1}, {what}: {found[what][-1]:.0f} {KINDS[name].unit}/s", flush=True)
    return {"unit": KINDS[name].unit, "samples": samples, "rates": found}


def main() -> None:
    """Measure task by task, and keep what was found for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not processes.MEMORY.items() <= os.environ.items():  # glibc reads it when a process begins
        command = [sys.executable, "-m", __spec__.name, *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env=os.environ | processes.MEMORY, check=False).returncode)
    with tempfile.TemporaryDirectory() as scratch:
        report.keep("inference", {"tasks": {n: measured(n, Path(scratch), options.rounds) for n in KINDS}})


if __name__ == "__main__":
    main()
