"""What the benchmarks found, and docs/performance.md, which says it beside what was aimed at."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import figures
from components import files

DOCS = Path(__file__).parents[1] / "docs"
KEPT = DOCS / "performance.json"


def machine() -> str:
    """Return the machine in words: two of one name may differ, the ratios of one run do not."""
    model = platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        names = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def keep(name: str, found: dict[str, Any]) -> None:
    """Keep what a benchmark found, in place of what it found before."""
    import torch

    said = {"machine": f"{machine()}, torch {torch.__version__}", "date": datetime.now(UTC).date().isoformat()}
    files.write_json(KEPT, kept() | {name: found | said})
    write()


def kept() -> dict[str, Any]:
    """Return what was found before, by benchmark."""
    return dict(json.loads(KEPT.read_text(encoding="utf-8"))) if KEPT.exists() else {}


INTRODUCTION = """# How fast it is

Each figure was measured by the command beside it, on the machine that is named; each ratio is of one run, in which
the contenders took turns (A B C A B C ...), and stands as median [lowest, highest]. `make bench` measures all of it
again and writes this page.
"""
ON_THROUGHPUT = """## Throughput of training

`python -m benchmarks.throughput`: the whole product (a Ray worker, MLflow, checkpoints, validation, progress), by
the clock on the wall, against a loop in fp32 over a DataLoader, Lightning's Trainer with its defaults, Accelerate,
and the best loop that we can write by hand (all in `benchmarks/contenders.py`). The same network, data, batch,
optimizer and seeds; `loss` is the mean of the last epoch, mean ± deviation over the rounds.

![Samples a second of each contender](images/throughput.png)
"""
ON_AROUND = """## The minutes around

`python -m benchmarks.around` ({machine}, {date}): one `pedigree run` of all tasks in a fresh clone, in seconds.
`training` is the updates of the weights alone; `around` is all else: imports, Prefect, Ray, DVC, MLflow,
validation, evaluation and registration. The start and the end of the command count for the first task.
"""
TARGETS = {
    "vision": {"plain loop": 2.3, "Lightning": 2.3, "Accelerate": 2.3, "by hand": 0.97},
    "language": {"plain loop": 1.6, "Lightning": 1.6, "Accelerate": 1.6, "by hand": 0.97},
    "speech": {"plain loop": 2.5, "Lightning": 2.5, "Accelerate": 2.5, "by hand": 0.97},
}
"""What was aimed at, on a processor that multiplies bf16."""
PEAK = {"vision": 0.80, "language": 0.65, "speech": 0.60}


def write() -> None:
    """Write the page, and its picture, from what was found."""
    found = kept()
    lines = [INTRODUCTION]
    named = {name.removeprefix(THROUGHPUT): each for name, each in found.items() if name.startswith(THROUGHPUT)}
    if named:
        figures.throughput({name: each["contenders"] for name, each in named.items()}, DOCS / "images")
        lines.append(ON_THROUGHPUT)
    for name, each in named.items():
        lines += [*_throughput(name, each), ""]
    if "around" in found:
        lines += [*_around(found["around"]), ""]
    if "scaling" in found:
        lines += _scaling(found["scaling"])
    files.write_text(DOCS / "performance.md", "\n".join(lines).rstrip() + "\n")


THROUGHPUT = "throughput of "


def _throughput(name: str, found: dict[str, Any]) -> list[str]:
    rows = found["contenders"]
    ours = rows["Pedigree"]
    shares = [each["share_of_peak"] for each in ours]
    table = [
        f"### {name}, {found['unit']} a second ({found['machine']}, {found['precision']}, {found['date']})",
        "",
        "| | samples/s | Pedigree is | aimed at | loss |",
        "|---|---|---|---|---|",
    ]
    for contender, each in rows.items():
        rates, losses = [row["rate"] for row in each], [row["loss"] for row in each]
        loss = f"{statistics.mean(losses):.3f} ± {statistics.stdev(losses):.3f}" if len(losses) > 1 else "-"
        ratio, target = "", ""
        if contender != "Pedigree":
            ratio = f"{spread([a['rate'] / b['rate'] for a, b in zip(ours, each, strict=True)])}x"
            target = f"{TARGETS[name][contender]}x"
        table.append(f"| {contender} | {spread(rates, '.0f')} | {ratio} | {target} | {loss} |")
    return [*table, "", f"Share of the measured peak: {spread(shares)}; aimed at {PEAK[name]:.2f} in bf16."]


def _around(found: dict[str, Any]) -> list[str]:
    stages = ("prepare", "train", "evaluate", "register")
    lines = [
        ON_AROUND.format(**found),
        "| | " + " | ".join(stages) + " | training | around | aimed at |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, (name, seconds) in enumerate(found["runs"].items()):
        cells = [f"{seconds[what]:.1f}" for what in (*stages, "training", "around")]
        lines.append(f"| {name} | {' | '.join(cells)} | {10 if number else 20} |")
    return [
        *lines,
        "",
        "| | seconds | aimed at |",
        "|---|---|---|",
        f"| `pedigree --help` | {spread(found['help'])} | 0.3 |",
        f"| `dvc repro` with nothing to do | {spread(found['repro'])} | 3 |",
        f"| from `prefect deployment run` to the first update | {spread(found['deployment'], '.1f')} | 15 |",
    ]


ON_SCALING = """## More workers

`python -m benchmarks.scaling` ({machine}, {date}): ResNet-18 at half width ({parameters:,} parameters), {batch}
images of 32 x 32 a worker and update, one thread a worker, gradients averaged with gloo over loopback. Times are in
seconds. `efficiency` is the update of one worker alone over this one; `of the exchange` is that of as many workers
that exchange nothing, so that what they lose to each other's use of cores, caches and memory does not count.
`modelled` is the cost model of [scaling](scaling.md#what-another-worker-costs): that update, and an exchange after
it.
"""


def _scaling(found: dict[str, Any]) -> list[str]:
    workers = found["workers"]
    (alone,) = workers["1"].values()
    lines = [
        ON_SCALING.format(**found, parameters=int(alone[0]["parameters"])),
        "| workers | exchange | update | exchange alone | modelled | efficiency | of the exchange |",
        "|---|---|---|---|---|---|---|",
    ]
    for world, kinds in workers.items():
        for kind, rows in kinds.items():
            apart = kinds["no exchange, 4 pieces" if "4 pieces" in kind else "no exchange"]
            updates = [row["update"] for row in rows]
            efficiency = [a["update"] / row["update"] for a, row in zip(alone, rows, strict=True)]
            cells = ["", ""]
            shares = ""
            if "exchange" in rows[0]:
                exchange = [row["exchange"] for row in rows]
                modelled = [a["update"] + row["exchange"] for a, row in zip(apart, rows, strict=True)]
                cells = [spread(exchange, ".3f"), spread(modelled, ".3f")]
                shares = spread([a["update"] / row["update"] for a, row in zip(apart, rows, strict=True)])
            cells = [world, kind, spread(updates, ".3f"), *cells, spread(efficiency), shares]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def spread(numbers: Sequence[float], form: str = ".2f") -> str:
    """Return the median, and the lowest and highest."""
    return f"{statistics.median(numbers):{form}} [{min(numbers):{form}}, {max(numbers):{form}}]"
