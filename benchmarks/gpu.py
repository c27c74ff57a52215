"""python -m benchmarks.gpu: what only a GPU can show, in some minutes: checks, the speed of each task, CIFAR-10.

Each part runs in a process of its own, so that none can harm the next one, and is recorded when it is done. Speeds
are those of the training loop with the networks of the profiles; those of language and of speech on the embedded
data sets.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model

from benchmarks import report
from benchmarks.cases import KINDS, MODELS, ROOT, model_of
from benchmarks.gpu_checks import CHECKS, SMALL, Given, SkippedError, prepared
from components import models, tasks
from components.contracts import Event, Worker
from components.errors import first_line
from components.models import Model
from components.training import device, inference, loop, model_files

SHARE = {"cuda": 0.2, "cpu": 0.05}
"""Share of the embedded data sets that the checks use, by type of device."""
SECONDS = {"cuda": 240, "cpu": 1200}
"""Most seconds of a part."""
SPEEDS = {"cifar10": 3, "wikitext2": 1, "speech_commands": 8}
"""By profile: epochs to train, the last of which counts."""
FAST, MARK = "cifar10-fast", 0.94
"""A profile, and the accuracy on CIFAR-10's validation split that it should reach."""

Found = dict[str, Any]


def attempt(call: Callable[[], Found]) -> Found:
    """Return what a call found, or its error, and how long it took."""
    started = time.monotonic()
    try:
        found = {"passed": True} | call()
    except SkippedError as reason:
        found = {"passed": None, "said": str(reason)}
    except Exception as error:
        traceback.print_exc()
        found = {"passed": False, "said": f"{type(error).__name__}: {first_line(error)}"}
    return {"seconds": round(time.monotonic() - started, 1)} | found


def apart(name: str, on: torch.device, data: Path) -> Found:
    """Return what a part found in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--device", on.type, "--data", str(data), "--one", name]
    seconds = SECONDS[on.type]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise RuntimeError(f"its process ended with {done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(name: str, given: Given) -> Found:
    """Return what a check found."""
    return {"said": CHECKS[name](given)}


def trained(model: Model, data: Path, folder: Path, on: torch.device) -> list[dict[str, float]]:
    """Train on prepared data; return the metrics of each validation."""
    rows = list[dict[str, float]]()

    def listen(event: Event) -> None:
        if event["kind"] == "validation":
            rows.append(event["metrics"])

    folder.mkdir()
    loop.fit(model.task, model.params, prepared(model, model.raw, data), folder, Worker(on, emit=listen))
    return rows


def of_profile(profile: str, *settings: str) -> Model:
    """Return the model of a profile's task with its parameters."""
    over = models.profile(ROOT, profile)
    return models.load(ROOT, MODELS[over.task], over, settings)


def speed(profile: str, given: Given) -> Found:
    """Return the speed of the last of a few epochs."""
    model = of_profile(profile, f"train.epochs={SPEEDS[profile]}")
    row = trained(model, given.data / profile, given.scratch / profile, given.device)[-1]
    rate, share = row[f"speed/{model.task.unit}_per_second"], row["speed/share_of_peak"]
    described = device.described(given.device, device.precision_on(given.device, model.params.train.precision))
    said = f"{rate:,.0f} {model.task.unit}/s, {share:.2f} of the peak ({described})"
    return {"said": said, "rate": rate, "share_of_peak": share}


def to_mark(seed: int, given: Given) -> Found:
    """Return the seconds of training in which validation accuracy reaches the mark, and the test accuracy."""
    model = of_profile(FAST, f"train.seed={seed}")
    task, folder, data = model.task, given.scratch / FAST, given.data / FAST
    rows = trained(model, data, folder, given.device)
    network = task.build_model(model.params, prepared(model, model.raw, data).manifest)
    load_model(network, folder / model_files.WEIGHTS)
    test = task.load_split(data, "test")
    size = model.params.evaluate.batch_size
    scores = inference.evaluate(
        task, model.params, inference.placed(network, given.device), test, given.device, size
    )
    reached = next((row["speed/seconds_of_training"] for row in rows if row["val/accuracy"] >= MARK), None)
    when = f"after {reached:.2f} s of training" if reached else "not reached"
    whole = rows[-1]["speed/seconds_of_training"]
    said = f"{MARK:.0%} validation accuracy {when}; test accuracy {scores['accuracy']:.4f} after {whole:.2f} s"
    return {"said": said, "reached": reached, "test": scores["accuracy"]}


PARTS: Mapping[str, Mapping[str, Callable[[Given], Found]]] = {
    "checks": {name: lambda given, name=name: check(name, given) for name in CHECKS},
    "speeds": {profile: lambda given, profile=profile: speed(profile, given) for profile in SPEEDS},
    "results": {f"{FAST}, seed {seed}": lambda given, seed=seed: to_mark(seed, given) for seed in range(3)},
}
"""By kind and name, what is looked for."""


def prepare(out: Path, on: torch.device, cifar10: Path | None) -> None:
    """Prepare what is not prepared yet; CIFAR-10 is downloaded if no folder is given."""
    for task, kind in KINDS.items():
        model, raw = model_of(task, 0, *SMALL.get(task, ())), out / "raw" / task
        if not (out / task).exists():
            raw.parent.mkdir(parents=True, exist_ok=True)
            kind.cut(model.raw, raw, SHARE[on.type])
        prepared(model, raw, out / task)
    for profile in ("wikitext2", "speech_commands"):
        model = of_profile(profile)
        prepared(model, model.raw if on.type == "cuda" else out / "raw" / model.task.name, out / profile)
    if cifar10 is None and not (out / FAST).exists():
        cifar10, downloads = out / "raw" / "cifar10", ROOT / models.BUILD / models.DOWNLOADS
        for folder in (cifar10, downloads):
            folder.mkdir(parents=True, exist_ok=True)
        tasks.load("image_classification").public_data["cifar10"](cifar10, downloads)
    for profile in ("cifar10", FAST):
        model = of_profile(profile)
        prepared(model, cifar10 or model.raw, out / profile)


def main() -> None:
    """Check and measure, and record what was found for docs/performance.md; exit with 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", type=Path, help="CIFAR-10, {train,test}/<class>/<file>; else downloaded")
    parser.add_argument(
        "--data", type=Path, help="where data are prepared, or are already; else a temporary folder"
    )
    parser.add_argument("--device", default="cuda", choices=SHARE, help="cpu tries all parts, and records nothing")
    parser.add_argument("--one", metavar="PART", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not device.gpus():
        raise SystemExit("torch finds no GPU here: run this on a machine with a GPU")
    on = device.first_of(device.gpus()) if options.device == "cuda" else device.CPU
    with tempfile.TemporaryDirectory() as scratch:
        if options.one:
            device.settle(on)
            call = {name: part for parts in PARTS.values() for name, part in parts.items()}[options.one]
            print(json.dumps(attempt(lambda: call(Given(on, options.data, Path(scratch))))))
            return
        failed = run_all(on, (options.data or Path(scratch)).resolve(), options.cifar10)
    raise SystemExit(f"{failed} parts failed" if failed else 0)


def run_all(on: torch.device, data: Path, cifar10: Path | None) -> int:
    """Run all parts; return how many failed."""
    found: dict[str, Any] = {"device": device.described(on, "auto"), "gpus": len(device.gpus())}

    def note(kind: str, name: str, call: Callable[[], Found]) -> bool:
        each = found.setdefault(kind, {})[name] = attempt(call)
        word = {True: "passed", False: "FAILED", None: "not made"}[each["passed"]]
        print(f"{name}: {word} after {each['seconds']} s: {each['said']}", flush=True)
        if on.type == "cuda":
            report.record(report.GPU, found)
        return each["passed"] is False

    def ready() -> Found:
        prepare(data, on, cifar10)
        return {"said": "all data are there"}

    failed = note("data", "preparation", ready)
    return failed + sum(
        note(kind, name, lambda name=name: apart(name, on, data)) for kind, parts in PARTS.items() for name in parts
    )


if __name__ == "__main__":
    main()
