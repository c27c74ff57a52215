"""The results of the benchmarks, and docs/performance.md, which compares them with the targets."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import figures
from components.runtime import files

DOCS = Path(__file__).parents[1] / "docs"
RECORDS = DOCS / "performance.json"


def machine() -> str:
    """Return a description of the machine; machines with equal descriptions may still differ in speed."""
    model = platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        names = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def record(name: str, result: dict[str, Any]) -> None:
    """Record the result of a benchmark in place of an earlier one, and write the page."""
    files.write_json(RECORDS, recorded() | {name: result | context()})
    write()


def context() -> dict[str, str]:
    """Return the machine and the date, for a record."""
    import torch

    return {"machine": f"{machine()}, torch {torch.__version__}", "date": datetime.now(UTC).date().isoformat()}


def recorded() -> dict[str, Any]:
    """Return the recorded results by benchmark."""
    return dict(json.loads(RECORDS.read_text(encoding="utf-8"))) if RECORDS.exists() else {}


INTRODUCTION = """# How fast it is

Each figure was measured by the command next to it, on the machine named. Each ratio comes from one run in which the
contenders took turns (A B C A B C ...); figures are given as median [lowest, highest]. `make bench` measures them
again and writes this page, except for what is measured on a GPU by `make bench-gpu`. [Results](results.md) says how
good the models are and how long they train. [Where the time goes](profile.md) explains why a figure misses its
target.
"""
ON_THROUGHPUT = """## Training throughput

`python -m benchmarks.throughput` compares the whole product with a plain fp32 loop over a DataLoader, Lightning's
Trainer with its defaults, Accelerate, and the fastest loop we can write by hand (`benchmarks/contenders.py`). The
whole product means a Ray worker, MLflow, progress, and a checkpoint every 5 s within an epoch (on fast machines
only the epochs of image classification last that long); epochs after the first are measured. All contenders have
the same network, data, batch size, optimizer and seeds, except that Pedigree does not decay biases and norms.
DataLoaders have no workers. `loss` is the mean of the last epoch, mean ± standard deviation over the rounds.
Pedigree and the hand-written loop use bf16 where the processor has it, channels-last, fused optimizers, batches
gathered as a whole, and memory that glibc retains.

![Samples per second of each contender](images/throughput.png)
"""
ON_AROUND = """## Overhead around training

`python -m benchmarks.around` ({machine}, {date}): one `pedigree run` of all models in a fresh clone, in seconds.
`training` is the updates of the weights alone; `overhead` is everything else on the wall clock, from a model's
first line of output to the next model's: imports, Prefect, Ray, DVC, MLflow, validation, evaluation and
registration. The first model's time starts when the command starts; the last model's ends when the command ends.
"""
TARGETS = {
    "driving": {"plain loop": 1.5},
    "image_classification": {"plain loop": 2.3, "Lightning": 2.3, "Accelerate": 2.3, "by hand": 0.97},
    "image_generation": {"plain loop": 1.5},
    "language_model": {"plain loop": 1.6, "Lightning": 1.6, "Accelerate": 1.6, "by hand": 0.97},
    "object_detection": {"plain loop": 1.5},
    "question_answering": {"plain loop": 1.5},
    "segmentation": {"plain loop": 1.5},
    "spoken_words": {"plain loop": 2.5, "Lightning": 2.5, "Accelerate": 2.5, "by hand": 0.97},
    "text_classification": {"plain loop": 1.5},
    "speech_to_text": {"plain loop": 1.5},
    "speech_synthesis": {"plain loop": 1.5},
    "translation": {"plain loop": 1.5},
}
"""Targets on a processor with bf16 instructions, by task and contender."""
PEAK = {"image_classification": 0.80, "language_model": 0.65, "spoken_words": 0.60}


def write() -> None:
    """Write the page and its figure from the recorded results."""
    found = recorded()
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
    if "beam search" in found:
        lines += [*_beam(found["beam search"]), ""]
    lines += _large({name.removeprefix(LARGE): each for name, each in found.items() if name.startswith(LARGE)})
    if TABLE in found:
        lines += [*_large_table(found[TABLE]), ""]
    if "scaling" in found:
        lines += [*_scaling(found["scaling"]), ""]
    lines += _gpu(found.get(GPU))
    files.write_text(DOCS / "performance.md", "\n".join(lines).rstrip() + "\n")


THROUGHPUT = "throughput of "
LARGE = "large set of "
TABLE = "large table"
GPU = "gpu"


def _throughput(name: str, found: dict[str, Any]) -> list[str]:
    rows = found["contenders"]
    ours = rows["Pedigree"]
    shares = [each["share_of_peak"] for each in ours]
    table = [
        f"### {name}, {found['unit']} per second ({found['machine']}, {found['precision']}, {found['date']})",
        "",
        f"| | {found['unit']}/s | Pedigree relative to it | target | loss |",
        "|---|---|---|---|---|",
    ]
    for contender, each in rows.items():
        rates, losses = [row["rate"] for row in each], [row["loss"] for row in each]
        loss = f"{statistics.mean(losses):.3f} ± {statistics.stdev(losses):.3f}" if len(losses) > 1 else "-"
        ratio, target = "", ""
        if contender != "Pedigree":
            ratio = f"{spread([a['rate'] / b['rate'] for a, b in zip(ours, each, strict=True)])}x"
            target = f"{TARGETS[name][contender]}x" if contender in TARGETS[name] else ""
        table.append(f"| {contender} | {spread(rates, '.0f')} | {ratio} | {target} | {loss} |")
    whole = spread([each["whole"] / each["rate"] for each in ours])
    aim = f"; target: {PEAK[name]:.2f} in bf16" if name in PEAK else ""
    return [
        *table,
        "",
        f"Share of the measured peak: {spread(shares)}{aim}. On the wall clock, including validation and the "
        f"checkpoint at the end of these short epochs, the rate is {whole} of the above.",
    ]


def _around(found: dict[str, Any]) -> list[str]:
    stages = ("prepare", "train", "evaluate", "register")
    lines = [
        ON_AROUND.format(**found),
        "| | " + " | ".join(stages) + " | training | overhead | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, (name, seconds) in enumerate(found["runs"].items()):
        cells = [f"{seconds[what]:.1f}" for what in (*stages, "training", "around")]
        lines.append(f"| {name} | {' | '.join(cells)} | {10 if number else 20} |")
    most = max(each["around"] for each in found["runs"].values())
    return [
        *lines,
        "",
        f"Of an hour of training, {most:.0f} s would be {100 * most / 3600:.1f} % (target: at most 5). This is "
        "computed: no hour was run, and its validations and checkpoints would add to it.",
        "",
        "| | seconds | target |",
        "|---|---|---|",
        f"| `pedigree --help` | {spread(found['help'])} | 0.3 |",
        f"| `dvc repro` when everything is up to date | {spread(found['repro'])} | 3 |",
        f"| from `prefect deployment run` to the first update | {spread(found['deployment'], '.1f')} | 15 |",
    ]


ON_INFERENCE = """## Evaluation

`python -m benchmarks.inference` ({machine}, {date}): samples per second of an fp32 pass over the test split of
`pedigree data`, compared with the network alone on inputs already in memory. Both take turns in one process, which
retains freed memory as our workers do.

| | samples | evaluation | bare network | ratio | target |
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


ON_BEAM = """## Beam search

`python -m benchmarks.beam` ({machine}, {date}): seconds to search the texts of {sentences} sentences with a beam of
{beam} and {tokens} tokens each, with the Transformer of the profile `multi30k` (torch threads: {threads}; load
average of the machine just before: {load:.1f}). Keys and values of earlier positions are cached, or the decoder is
computed anew for the whole prefix at each step. Both find the same texts.

| cached | recomputed | ratio | target |
|---|---|---|---|
"""


def _beam(found: dict[str, Any]) -> list[str]:
    cached, recomputed = found["seconds"].values()
    ratio = spread([b / a for a, b in zip(cached, recomputed, strict=True)])
    return [ON_BEAM.format(**found) + f"| {spread(cached)} | {spread(recomputed)} | {ratio}x | 5x |"]


ON_SCALING = """## More workers

`python -m benchmarks.scaling` ({machine}, {date}): ResNet-18 at half width ({parameters:,} parameters), {batch}
images of 32 x 32 per worker and micro-batch, one thread per worker, gradients averaged with gloo over loopback.
Times are in seconds per micro-batch: an update of 4 micro-batches takes four times as long and exchanges gradients
once. `efficiency` is the time of a single worker divided by this time. `efficiency of exchange` divides the time of
as many workers that exchange nothing by this time, which leaves out what workers lose to each other's use of cores,
caches and memory. `modelled` is the cost model of [scaling](scaling.md#what-another-worker-costs): the time without
an exchange, followed by an exchange.
"""


def _scaling(found: dict[str, Any]) -> list[str]:
    workers = found["workers"]
    (alone,) = workers["1"].values()
    lines = [
        ON_SCALING.format(**found, parameters=int(alone[0]["parameters"])),
        "| workers | exchange | micro-batch | exchange alone | modelled | efficiency | efficiency of exchange |",
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
            named = kind.replace("pieces", "micro-batches")
            cells = [world, named, spread(updates, ".3f"), *cells, spread(efficiency), shares]
            lines.append(f"| {' | '.join(cells)} |")
    exchanges = {world: [row["exchange"] for row in workers[world]["each update"]] for world in ("2", "4")}
    two, four = (statistics.median(seconds) for seconds in exchanges.values())
    rate = 4e-9 * alone[0]["parameters"] / two
    return [
        *lines,
        "",
        f"From the exchange between two workers ({rate:.2f} GB/s) the model predicts {1.5 * two:.3f} s for four; "
        f"on {found['cores']} cores it took {four:.3f} s, {four / two / 1.5:.2f} times as long.",
    ]


ON_LARGE = """## Large sets

`python -m benchmarks.large`: generated files, prepared and trained on through the product, compared with a small
set. The small set's files fit in memory; a large set's may not. Training alternates between the sets; preparation
is measured once for each, outside a DVC project, which would hash the raw files as well. Memory is the peak of what
processes hold of their own (RssAnon of proc(5), without mapped files), in MiB: of the largest process, and of all
processes together (for training: the driver, the worker and Ray's). Training is measured within an epoch, for
{seconds:.0f} s after the first seconds.
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
            f"| | {unit} | {unit}/s | relative to the small set | target | largest process | all processes |",
            "|---|---|---|---|---|---|---|",
        ]
        for what, row in (("prepare, one core", alone), ("prepare", small), ("prepare", large)):
            memory = f"{row['memory of one']:.0f} | {row['memory']:.0f}"
            over = row["rate"] / small["rate"]
            lines.append(f"| {what} | {row['samples']:,} | {row['rate']:,.0f} | {over:.2f} |  | {memory} |")
        for size, rows in trains.items():
            memory = " | ".join(f"{max(row[what] for row in rows):.0f}" for what in ("memory of one", "memory"))
            over, target = (ratio, "0.95, 1,907 MiB") if size == "large" else ("1.00", "")
            samples = (large if size == "large" else small)["samples"]
            lines.append(f"| train | {samples:,} | {spread(rates[size], ',.0f')} | {over} | {target} | {memory} |")
        lines.append("")
    return lines


ON_TABLE = """## A large table

`python -m benchmarks.large_table` ({machine}, {date}): a generated table of {rows:,} rows and 50 columns, a CSV of
{table:,.0f} MiB. Its rows are noise, on some columns of which a class depends. `train` is the whole stage with one
epoch; `baselines` are fitted on {fitted:,} rows, and predict the test rows. Memory is the peak of what all
processes of a step hold of their own (RssAnon of proc(5), without mapped files), and disk that of the table and all
arrays, both in MiB. Preparation is measured outside a DVC project, which would hash the table as well.

| | seconds | target | memory | target | disk | target |
|---|---|---|---|---|---|---|
"""
ON_TABLE_RATES = """
Rows per second within an epoch, for {seconds:.0f} s after the first seconds: the whole product, and plain fp32
loops over a DataLoader without workers. These have the same network, batch size and optimizer; their items are the
rows of pandas frames, or of tensors.

| | rows/s | Pedigree relative to it | target |
|---|---|---|---|
"""
ON_TABLE_TARGETS = {"prepare": "900", "pandas and a DataLoader": "3x"}


def _large_table(found: dict[str, Any]) -> list[str]:
    steps = found["steps"]
    text = ON_TABLE.format(**found, fitted=steps["baselines"]["rows"])
    for name, each in steps.items():
        cells = [name, f"{each['seconds']:.0f}", ON_TABLE_TARGETS.get(name, ""), f"{each['memory']:,.0f}", "3,815"]
        text += f"| {' | '.join(cells)} | {each['disk']:,.0f} | 11,444 |\n"
    text += ON_TABLE_RATES.format(**found)
    ours = found["contenders"]["Pedigree"]
    for name, rows in found["contenders"].items():
        ratio = (
            "" if rows is ours else f"{spread([a['rate'] / b['rate'] for a, b in zip(ours, rows, strict=True)])}x"
        )
        rates = spread([row["rate"] for row in rows], ",.0f")
        text += f"| {name} | {rates} | {ratio} | {ON_TABLE_TARGETS.get(name, '')} |\n"
    return text.splitlines()


NO_GPU = """## On a GPU

Nothing on this page was measured on a GPU. `make bench-gpu` makes the checks that need one, measures the speed of
each task and the time to 94 % on CIFAR-10, and writes the results here.
"""
ON_GPU_KINDS = ("data", "checks", "speeds", "results")
ON_GPU = """## On a GPU

`make bench-gpu` ({machine}, {date}) on {gpus} x {device}. A speed is that of the last of a few epochs of the
training loop with the profile's network: `cifar10` on CIFAR-10, the others on the embedded data set of their task.
`cifar10-fast` is trained on CIFAR-10 with each seed; its seconds are those of training, without validation.

| | result | seconds |
|---|---|---|
"""


def _gpu(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return [NO_GPU]
    words = {True: "passed", False: "**failed**", None: "not made"}
    rows = []
    for kind in ON_GPU_KINDS:
        for name, each in found.get(kind, {}).items():
            said = " ".join(each["said"].replace("|", "/").split())
            rows.append(f"| {name} | {words[each['passed']]}: {said} | {each['seconds']} |")
    return [ON_GPU.format(**found) + "\n".join(rows), ""]


def spread(numbers: Sequence[float], form: str = ".2f") -> str:
    """Return the median with the lowest and highest number."""
    return f"{statistics.median(numbers):{form}} [{min(numbers):{form}}, {max(numbers):{form}}]"
