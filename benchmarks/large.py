"""python -m benchmarks.large: a million images, 200 hours of sound: what preparing them and training on them takes.

Beside each large set stands a small one of files of the same kind: what is prepared and trained in a second should
be the same, and memory should not grow. The sets are noise, written for the occasion; training is stopped after a
while, as Ctrl-C would.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import report
from benchmarks.cases import ROOT, values_of
from components import processes, readers, tasks
from components.adapters import mlflow_store
from components.contracts import Event
from components.params import TaskParams
from components.stages import prepare, train
from components.stages.origin import Origin

SMALL = 50
"""The large set is so many times the small one, or less where that would be read in another way."""
RATE = 16_000
"""Samples of sound a second; a clip is a second long."""
WARM_UP = 5.0
"""Seconds of training that do not count."""
CHUNK = 5_000
"""Files that a process writes in one go."""
CLASSES = 10


def image(generator: np.random.Generator, file: Path) -> None:
    """Write a picture of 32 x 32, smooth as photographs are, with a little noise."""
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), np.uint8)).resize(
        (32, 32), Image.Resampling.BICUBIC
    )
    noise = generator.integers(0, 8, (32, 32, 3), np.uint8)
    Image.fromarray(np.asarray(coarse) // 2 + noise).save(file, compress_level=1)


def clip(generator: np.random.Generator, file: Path) -> None:
    """Write a second of noise, 16 bits."""
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(generator.integers(-8000, 8000, RATE, np.int16).tobytes())


def _write_chunk(folder: Path, suffix: str, write: Callable[[np.random.Generator, Path], None], first: int) -> None:
    generator = np.random.default_rng(first)
    for number in range(first, first + CHUNK):
        write(generator, folder / f"{number % CLASSES}" / f"s{number % 997:03d}_{number:07d}{suffix}")


@dataclass(frozen=True)
class Kind:
    """What is made of a task."""

    unit: str
    suffix: str
    write: Callable[[np.random.Generator, Path], None]
    below: tuple[str, ...]
    """The folders of classes, below the raw folder, and what share of the files each gets."""
    bytes_a_file: int
    """On the disk, raw and prepared."""
    settings: tuple[str, ...]
    """Over params.yaml: a network so small that the way of the data counts."""


KINDS = {
    "vision": Kind(
        "images",
        ".png",
        image,
        ("train", "test"),
        4096 + 3072,
        ("prepare.size=32", "prepare.channels=3", "train.model.width=0.125", "train.epochs=1000"),
    ),
    "speech": Kind("clips", ".wav", clip, (".",), 4 * RATE + 4096, ("prepare.seconds=1.0", "train.epochs=1000")),
}


def make(name: str, raw: Path, files: int) -> None:
    """Write a raw set; where a test folder is wanted, a hundredth more goes there."""
    kind = KINDS[name]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for below, number in zip(kind.below, (files, max(files // 100, CHUNK)), strict=False):
            for label in range(CLASSES):
                (raw / below / f"{label}").mkdir(parents=True)
            begin = 0 if below != "test" else files
            work = partial(_write_chunk, raw / below, kind.suffix, kind.write)
            list(pool.map(work, range(begin, begin + number, CHUNK)))


def one(what: str, name: str, raw: Path, out: Path, seconds: float) -> dict[str, float]:
    """Prepare, or train for so many seconds, in this process; return what came out."""
    values = values_of(name, 0, *KINDS[name].settings)
    return prepared(name, values, raw, out) if what == "prepare" else trained(name, values, out, seconds)


def prepared(name: str, values: TaskParams, raw: Path, out: Path) -> dict[str, float]:
    """Return the files a second."""
    started = time.monotonic()
    manifest = prepare.prepare(tasks.load(name), values, raw, out).manifest
    files = sum(split.samples for split in manifest.splits.values())
    return {"samples": files, "rate": files / (time.monotonic() - started)}


@dataclass
class Rate:
    """Samples a second, inside epochs, from what a training tells of its progress."""

    samples: int
    """Of an epoch."""
    until: float
    """Seconds of training after which this process is told to stop."""
    done: float = 0.0
    seconds: float = 0.0
    began: float | None = None
    before: tuple[float, int, float] | None = None
    _stopped: bool = field(default=False, repr=False)

    def __call__(self, event: Event) -> None:
        """Listen to a training."""
        if event["kind"] != "progress":
            return
        now = time.monotonic()
        self.began = self.began or now
        last, self.before = self.before, (now, event["epoch"], event["share"] * event["epochs"])
        if last and last[1] == event["epoch"] and now - self.began > WARM_UP:
            self.seconds += now - last[0]
            self.done += self.samples * (self.before[2] - last[2])
        if now - self.began > self.until + WARM_UP and not self._stopped:
            self._stopped = True
            os.kill(os.getpid(), signal.SIGINT)


def trained(name: str, values: TaskParams, folder: Path, seconds: float) -> dict[str, float]:
    """Return the samples a second of a training that is stopped."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started us with `&`
    data = prepare.load(folder)
    rate = Rate(data.manifest.splits["train"].samples, seconds)
    with tempfile.TemporaryDirectory() as scratch:
        mlflow_store.connect(Path(scratch))
        with suppress(KeyboardInterrupt):
            train.train(tasks.load(name), values, data, Path(scratch, "model"), Origin(ROOT), listeners=[rate])
    return {"rate": rate.done / rate.seconds}


def watched(
    what: str, name: str, raw: Path, out: Path, seconds: float, cores: int | None = None
) -> dict[str, float]:
    """Run `one` in a process of its own; add the most memory that it and its children had, in MiB.

    That is RssAnon of proc(5), without the pages of files that are mapped.
    """
    command = [sys.executable, "-m", __spec__.name, "--one", what, name, str(raw), str(out), str(seconds)]
    if cores:
        command = ["taskset", "--cpu-list", f"0-{cores - 1}", *command]
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as wrong:
        process = subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=wrong)
        most = largest = 0.0
        while process.poll() is None:
            sizes = [_own(each.pid) for each in processes.tree(process.pid)]
            most, largest = max(most, sum(sizes)), max([largest, *sizes])
            time.sleep(0.5)
        told.seek(0)
        wrong.seek(0)
        if process.returncode:
            raise SystemExit(f"{command}:\n{wrong.read()[-3000:]}")
        return json.loads(told.read().splitlines()[-1]) | {"memory": most, "memory of one": largest}


def _own(pid: int) -> float:
    with suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(lines["RssAnon"].split()[0]) / 1024 if "RssAnon" in lines else 0.0  # a zombie has none
    return 0.0


def main() -> None:
    """Make the sets, measure in turns, tell of each, and keep what was found for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(KINDS), help="of vision, speech")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--hours", type=float, default=200, help="of sound; each takes 230 MB while it is measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30, help="of training in each round")
    parser.add_argument(
        "--one", nargs=5, metavar=("STAGE", "TASK", "RAW", "OUT", "SECONDS"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.one:
        what, name, raw, out, seconds = options.one
        print(json.dumps(one(what, name, Path(raw), Path(out), float(seconds))))
        return
    sizes = {"vision": options.images, "speech": round(options.hours * 3600)}
    for name in options.tasks:
        with tempfile.TemporaryDirectory() as scratch:
            measure(name, Path(scratch), sizes[name], options)


def measure(name: str, scratch: Path, files: int, options: argparse.Namespace) -> None:
    """Measure both sets of a task, and keep what was found after each round."""
    needed, free = files * KINDS[name].bytes_a_file, shutil.disk_usage(scratch).free
    if needed > free:
        raise SystemExit(
            f"{name}: {scratch} has {free >> 30} GiB free, and {needed >> 30} are needed: ask for less"
        )
    found: dict[str, Any] = {"unit": KINDS[name].unit, "seconds": options.seconds}
    small = min(files, max(files // SMALL, readers.MANY))
    for size, number in (("small", small), ("large", files)):
        started = time.monotonic()
        make(name, scratch / size / "raw", number)
        print(f"{name}, {size}: written in {time.monotonic() - started:.0f} s", flush=True)
        for cores, what in ((1, "small, 1 core"), (None, "small")) if size == "small" else ((None, "large"),):
            row = watched("prepare", name, scratch / size / "raw", scratch / size / "prepared", 0, cores)
            found[f"prepare {what}"] = row
            print(f"{name}, prepare {what}: {row}", flush=True)
    for number in range(options.rounds):
        for size in ("small", "large"):
            row = watched("train", name, scratch / size / "raw", scratch / size / "prepared", options.seconds)
            found.setdefault(f"train {size}", []).append(row)
            print(f"{name}, round {number + 1}, train {size}: {row}", flush=True)
        report.keep(f"{report.LARGE}{name}", found)


if __name__ == "__main__":
    main()
