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
the contenders took turns (A B C A B C ...), and stands as median [lowest, highest]. `make bench` measures it again
and writes this page; what profiles come to is measured one by one, and on a GPU by `make bench-gpu`. Why a figure
missed what was aimed at: [where the time goes](profile.md).
"""
ON_THROUGHPUT = """## Throughput of training

`python -m benchmarks.throughput`: the whole product (a Ray worker, MLflow, progress, a checkpoint after each 5 s
of an epoch, which on fast machines only vision's epochs last) inside epochs after the first, against a loop in
fp32 over a DataLoader, Lightning's Trainer with its defaults, Accelerate, and the best loop that we can write by
hand (all in `benchmarks/contenders.py`). The same network, data, batch, optimizer and seeds (ours does not decay
biases and norms); DataLoaders have no workers. `loss` is the mean of the last epoch, mean ± deviation over the
rounds. Pedigree and the loop by hand have bf16 where the processor
has it, channels-last, fused optimizers, whole batches made at once, and memory that glibc keeps.

![Samples a second of each contender](images/throughput.png)
"""
ON_AROUND = """## The minutes around

`python -m benchmarks.around` ({machine}, {date}): one `pedigree run` of all tasks in a fresh clone, in seconds.
`training` is the updates of the weights alone; `around` is all else by the clock, from a task's first line to the
next one's: imports, Prefect, Ray, DVC, MLflow, validation, evaluation and registration. The first task's begins
with the command, the last one's ends with it.
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
    if "inference" in found:
        lines += [*_inference(found["inference"]), ""]
    lines += _large({name.removeprefix(LARGE): each for name, each in found.items() if name.startswith(LARGE)})
    lines += _results({name.removeprefix(RESULT): each for name, each in found.items() if name.startswith(RESULT)})
    if "scaling" in found:
        lines += _scaling(found["scaling"])
    files.write_text(DOCS / "performance.md", "\n".join(lines).rstrip() + "\n")


THROUGHPUT = "throughput of "
LARGE = "large set of "
RESULT = "result of "


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
    whole = spread([each["whole"] / each["rate"] for each in ours])
    return [
        *table,
        "",
        f"Share of the measured peak: {spread(shares)}; aimed at {PEAK[name]:.2f} in bf16. By the clock on the "
        f"wall, with validation and the checkpoint at the end of these short epochs, it is {whole} of that rate.",
    ]


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
    most = max(each["around"] for each in found["runs"].values())
    return [
        *lines,
        "",
        f"Beside an hour of training {most:.0f} s would be {100 * most / 3600:.1f} % (aimed at: at most 5). An "
        "hour was not run; its validations and checkpoints come on top.",
        "",
        "| | seconds | aimed at |",
        "|---|---|---|",
        f"| `pedigree --help` | {spread(found['help'])} | 0.3 |",
        f"| `dvc repro` with nothing to do | {spread(found['repro'])} | 3 |",
        f"| from `prefect deployment run` to the first update | {spread(found['deployment'], '.1f')} | 15 |",
    ]


ON_INFERENCE = """## Evaluation

`python -m benchmarks.inference` ({machine}, {date}): samples a second of a pass over the test split of `pedigree
data` in fp32, beside those of the network alone on inputs that lie ready; one process, in turns, which keeps its
memory as our workers do.

| | samples | evaluation | bare network | evaluation is | aimed at |
|---|---|---|---|---|---|
"""


def _inference(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, each in found["tasks"].items():
        ours, bare = each["rates"].values()
        ratio = spread([a / b for a, b in zip(ours, bare, strict=True)])
        cells = [name, f"{each['samples']:,} {each['unit']}", spread(ours, ",.0f"), spread(bare, ",.0f")]
        rows.append(f"| {' | '.join(cells)} | {ratio}x | 1x |")
    return [ON_INFERENCE.format(**found) + "\n".join(rows)]


ON_SCALING = """## More workers

`python -m benchmarks.scaling` ({machine}, {date}): ResNet-18 at half width ({parameters:,} parameters), {batch}
images of 32 x 32 a worker and piece, one thread a worker, gradients averaged with gloo over loopback. Times are in
seconds for a piece: an update of 4 pieces takes four times as long, and exchanges once. `efficiency` is the time of
one worker alone over this one; `of the exchange` is that of as many workers that exchange nothing, so that what
they lose to each other's use of cores, caches and memory does not count. `modelled` is the cost model of
[scaling](scaling.md#what-another-worker-costs): that time, and an exchange after it.
"""


def _scaling(found: dict[str, Any]) -> list[str]:
    workers = found["workers"]
    (alone,) = workers["1"].values()
    lines = [
        ON_SCALING.format(**found, parameters=int(alone[0]["parameters"])),
        "| workers | exchange | a piece | exchange alone | modelled | efficiency | of the exchange |",
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
    exchanges = {world: [row["exchange"] for row in workers[world]["each update"]] for world in ("2", "4")}
    two, four = (statistics.median(seconds) for seconds in exchanges.values())
    rate = 4e-9 * alone[0]["parameters"] / two
    return [
        *lines,
        "",
        f"From two workers' exchange alone ({rate:.2f} GB/s) the model foretells {1.5 * two:.3f} s for four, which "
        f"on {found['cores']} cores took {four:.3f} s, {four / two / 1.5:.2f} times as long.",
    ]


ON_LARGE = """## Large sets

`python -m benchmarks.large`: files that the benchmark makes, prepared and trained on through the product, beside
a small set, whose files are in memory where a large set's may not be. Training takes turns; preparing is measured
once each, and outside a DVC project, which would hash the raw files besides. `memory` is the most that the process
and all that it started had of their own at once (RssAnon of proc(5), no mapped files), in MiB: `largest` of one
process, `all` of all together (a training's are the driver, the worker and Ray's). Training is measured within an
epoch, for {seconds:.0f} s after the first seconds.
"""


def _large(found: dict[str, dict[str, Any]]) -> list[str]:
    if not found:
        return []
    lines = [ON_LARGE.format(seconds=next(iter(found.values()))["seconds"])]
    for name, each in found.items():
        alone, small, large = (each[f"prepare {what}"] for what in ("small, 1 core", "small", "large"))
        trains = {size: each[f"train {size}"] for size in ("small", "large")}
        rates = {size: [row["rate"] for row in rows] for size, rows in trains.items()}
        ratio = spread([a / b for a, b in zip(rates["large"], rates["small"], strict=True)])
        unit = each["unit"]
        lines += [
            f"### {name} ({each['machine']}, {each['date']})",
            "",
            f"| | {unit} | {unit} a second | over the small set's | aimed at | memory, largest | memory, all |",
            "|---|---|---|---|---|---|---|",
        ]
        for what, row, ratio_to, target in (
            ("prepare, one core", alone, alone["rate"] / small["rate"], ""),
            ("prepare", small, 1.0, ""),
            ("prepare", large, large["rate"] / small["rate"], ""),
        ):
            memory = f"{row['memory of one']:.0f} | {row['memory']:.0f}"
            lines.append(
                f"| {what} | {row['samples']:,} | {row['rate']:,.0f} | {ratio_to:.2f} | {target} | {memory} |"
            )
        for size, rows in trains.items():
            memory = " | ".join(f"{max(row[what] for row in rows):.0f}" for what in ("memory of one", "memory"))
            over, target = (ratio, "0.95, 1,907 MiB") if size == "large" else ("1.00", "")
            samples = (large if size == "large" else small)["samples"]
            lines.append(f"| train | {samples:,} | {spread(rates[size], ',.0f')} | {over} | {target} | {memory} |")
        lines.append("")
    return lines


ON_RESULTS = """## Time to a result

`python -m benchmarks.result PROFILE DATA`: a profile through the product, a seed at a time; `test` is the mean ±
deviation over n seeds, `minutes` are those of the updates of the weights (`speed/seconds_of_training`), with
`train.compile` the compiling, too.

| profile | device, precision | test | n | minutes | samples a second | of the peak | aimed at |
|---|---|---|---|---|---|---|---|
"""
METRICS = {"shakespeare": "loss"}
"""What is told of a profile, where it is not the task's score: nats a character."""
AIMS = {
    "cifar10-fast": "0.935 in 25 min, in bf16",
    "shakespeare": "1.44 in 3 min, then 1.42",
    "fsdd": "0.9967 in 94 s",
}
GPU_AIMS = {"cifar10-fast": "0.94 in 2.6 s on an A100", "cifar10": "0.96 in 7 min on an A100"}
MARKS = {"cifar10-fast": (0.94,), "cifar10": (0.94, 0.96)}
"""Accuracies whose time is told."""


def _results(found: dict[str, dict[str, Any]]) -> list[str]:
    if not found:
        return []
    rows, marks = [], list[str]()
    for key, each in found.items():
        profile = each["profile"]
        scores, minutes = ([run[what] for run in each["runs"]] for what in ("score", "minutes"))
        deviation = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        test = f"{each['metric']} {statistics.mean(scores):.4f}{deviation}"
        machine = f"{each['device']} ({each['machine']}, {each['date']})"
        rates = spread([run["rate"] for run in each["runs"]], ",.0f")
        shares = spread([run["share_of_peak"] for run in each["runs"]])
        aim = (GPU_AIMS if each["gpu"] else AIMS).get(profile, "")
        name = " ".join([profile, *(f"`--set {setting}`" for setting in each["settings"])])
        cells = [name, machine, test, f"{len(scores)}", spread(minutes, ".1f"), rates, shares, aim]
        rows.append(f"| {' | '.join(cells)} |")
        for mark in MARKS.get(profile, ()):
            reached = [next((m for m, score in run["validation"] if score >= mark), None) for run in each["runs"]]
            known = [each for each in reached if each is not None]
            seconds = spread([60 * each for each in known], ".1f") if known else ""
            when = f"after {seconds} s in {len(known)} of {len(reached)} trainings" if known else "in no training"
            marks.append(f"{key}: {100 * mark:.0f} % of the validation images were right {when}.")
    return [ON_RESULTS + "\n".join(rows), "", *marks, ""]


def spread(numbers: Sequence[float], form: str = ".2f") -> str:
    """Return the median, and the lowest and highest."""
    return f"{statistics.median(numbers):{form}} [{min(numbers):{form}}, {max(numbers):{form}}]"
