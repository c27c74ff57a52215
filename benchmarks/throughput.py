"""python -m benchmarks.throughput: training throughput of the product and of its alternatives.

All contenders have the same network, data, batch size, optimizer and number of updates, and run in separate
processes, in turns (A B C A B C ...). Their losses are reported, too. The data are those of `pedigree data`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.cases import KINDS, ROOT, model_of, values_of
from benchmarks.contenders import CONTENDERS, CPU
from components.runtime import processes
from components.stages import prepare
from components.training import device


def measured(contender: str, name: str, folder: Path, seed: int) -> dict[str, float]:
    """Measure a contender in a separate process."""
    command = [sys.executable, "-m", __spec__.name, "--one", contender, name, str(folder), str(seed)]
    memory = processes.MEMORY if contender == "by hand" else {}  # our own worker sets this itself
    done = subprocess.run(command, cwd=ROOT, env=os.environ | memory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender}, {name}:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print each round, and record the results for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(KINDS), help="names of tasks; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds, each with another seed")
    parser.add_argument("--one", nargs=4, metavar=("CONTENDER", "TASK", "FOLDER", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        contender, name, folder, seed = options.one
        print(json.dumps(CONTENDERS[contender](name, Path(folder), int(seed))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.tasks:
            raw = Path(scratch, "raw", name)
            raw.parent.mkdir(exist_ok=True)
            precision = device.precision_on(CPU, values_of(name, 0).train.precision)
            share = min(1.0, KINDS[name].share * max(2.0, device.peak_flops(CPU, precision) / 1e11))
            model = model_of(name, 0)
            KINDS[name].cut(model.raw, raw, share)
            prepare.prepare(model, raw, Path(scratch, name))
            found: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
            for seed in range(options.rounds):
                for contender, rows in found.items():
                    rows.append(measured(contender, name, Path(scratch), seed))
                    print(f"{name}, round {seed + 1}, {contender}: {rows[-1]}", flush=True)
            unit = KINDS[name].unit
            report.record(f"{report.THROUGHPUT}{name}", {"unit": unit, "precision": precision, "contenders": found})


if __name__ == "__main__":
    main()
