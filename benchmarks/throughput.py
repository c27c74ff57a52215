"""python -m benchmarks.throughput: samples a second of training, through the product and as people do it else.

The same network, data, batch, optimizer and number of updates for all, each time in a process of its own, one after
the other (A B C A B C ...), and the loss that each comes to. The data are those of `pedigree data`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.cases import KINDS, ROOT, values_of
from benchmarks.contenders import CONTENDERS, CPU
from components import processes, tasks
from components.stages import prepare
from components.training import device


def measured(contender: str, name: str, folder: Path, seed: int) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--one", contender, name, str(folder), str(seed)]
    kept = processes.MEMORY if contender == "by hand" else {}  # a trick of ours, which our worker has by itself
    done = subprocess.run(command, cwd=ROOT, env=os.environ | kept, capture_output=True, text=True, check=False)
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
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.tasks:
            raw = Path(scratch, "raw", name)
            raw.parent.mkdir(exist_ok=True)
            precision = device.precision_on(CPU, values_of(name, 0).train.precision)
            share = min(1.0, KINDS[name].share * max(2.0, device.peak_flops(CPU, precision) / 1e11))
            KINDS[name].cut(ROOT / "data" / name, raw, share)
            prepare.prepare(tasks.load(name), values_of(name, 0), raw, Path(scratch, name))
            found: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
            for seed in range(options.rounds):
                for contender, rows in found.items():
                    rows.append(measured(contender, name, Path(scratch), seed))
                    print(f"{name}, round {seed + 1}, {contender}: {rows[-1]}", flush=True)
            unit = KINDS[name].unit
            report.keep(f"{report.THROUGHPUT}{name}", {"unit": unit, "precision": precision, "contenders": found})


if __name__ == "__main__":
    main()
