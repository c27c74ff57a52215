"""python -m benchmarks.large: preparation of and training on a million images and 200 hours of sound.

Each large set is compared with a small one of the same kind of files: throughput should be the same, and memory
should not grow. The sets consist of generated noise; training is interrupted after a while, as by Ctrl-C.
"""

import argparse
import json
import os
import shutil
import signal
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

from benchmarks import memory, report
from benchmarks.cases import model_of
from components.adapters import mlflow_store
from components.contracts import Event
from components.datasets import readers
from components.models import Model
from components.stages import prepare, train

SMALL = 50
"""Ratio of the sets' sizes, or less if the small set would be too small for readers in processes."""
RATE = 16_000
"""Samples per second of a clip, which is one second long."""
WARM_UP = 5.0
"""Seconds of training that are not counted."""
CHUNK = 5_000
"""Files per task of a writer process."""
CLASSES = 10


def image(generator: np.random.Generator, file: Path) -> None:
    """Write a smooth 32 x 32 image with a little noise, similar to a photograph."""
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
    """The generated files of a task."""

    unit: str
    suffix: str
    write: Callable[[np.random.Generator, Path], None]
    below: tuple[str, ...]
    """Folders below the raw folder that contain the folders of classes."""
    bytes_a_file: int
    """Disk space per file, raw and prepared."""
    settings: tuple[str, ...]
    """Changes to params.yaml: a network so small that reading data dominates."""


KINDS = {
    "image_classification": Kind(
        "images",
        ".png",
        image,
        ("train", "test"),
        4096 + 3072,
        ("prepare.size=32", "prepare.channels=3", "train.model.width=0.125", "train.epochs=1000"),
    ),
    "spoken_words": Kind(
        "clips", ".wav", clip, (".",), 4 * RATE + 4096, ("prepare.seconds=1.0", "train.epochs=1000")
    ),
}


def make(name: str, raw: Path, files: int) -> None:
    """Write a raw set; a test folder, if any, gets a hundredth as many files in addition."""
    kind = KINDS[name]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for below, number in zip(kind.below, (files, max(files // 100, CHUNK)), strict=False):
            for label in range(CLASSES):
                (raw / below / f"{label}").mkdir(parents=True)
            begin = 0 if below != "test" else files
            work = partial(_write_chunk, raw / below, kind.suffix, kind.write)
            list(pool.map(work, range(begin, begin + number, CHUNK)))


def one(what: str, name: str, raw: Path, out: Path, seconds: float) -> dict[str, float]:
    """Prepare, or train for some seconds, in this process; return the measurements."""
    model = model_of(name, 0, *KINDS[name].settings)
    return prepared(model, raw, out) if what == "prepare" else trained(model, out, seconds)


def prepared(model: Model, raw: Path, out: Path) -> dict[str, float]:
    """Return the number of samples and of files per second."""
    started = time.monotonic()
    manifest = prepare.prepare(model, raw, out).manifest
    files = sum(split.samples for split in manifest.splits.values())
    return {"samples": files, "rate": files / (time.monotonic() - started)}


@dataclass
class Rate:
    """Samples per second within epochs, from the progress events of a training."""

    samples: int
    """Samples per epoch."""
    until: float
    """Seconds of training after which this process stops."""
    done: float = 0.0
    seconds: float = 0.0
    began: float | None = None
    before: tuple[float, int, float] | None = None
    _stopped: bool = field(default=False, repr=False)

    def __call__(self, event: Event) -> None:
        """Handle an event of the training."""
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


def trained(model: Model, folder: Path, seconds: float) -> dict[str, float]:
    """Return the samples per second of a training that is interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
    data = prepare.load(folder)
    rate = Rate(data.manifest.splits["train"].samples, seconds)
    with tempfile.TemporaryDirectory() as scratch:
        mlflow_store.connect(Path(scratch))
        with suppress(KeyboardInterrupt):
            train.train(model, data, Path(scratch, "model"), listeners=[rate])
    return {"rate": rate.done / rate.seconds}


def watched(
    what: str, name: str, raw: Path, out: Path, seconds: float, cores: int | None = None
) -> dict[str, float]:
    """Run `one` in a separate process; add the peak memory of it and its descendants, in MiB."""
    return memory.watched(__spec__.name, ["--one", what, name, str(raw), str(out), str(seconds)], cores)


def main() -> None:
    """Write the sets, measure in turns, print each result, and record the results for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "tasks", nargs="*", default=list(KINDS), help="image_classification, spoken_words; both by default"
    )
    parser.add_argument("--images", type=int, default=1_000_000, help="number of images in the large set")
    parser.add_argument("--hours", type=float, default=200, help="hours of sound; each needs 230 MB of disk space")
    parser.add_argument("--rounds", type=int, default=5, help="trainings on each set")
    parser.add_argument("--seconds", type=float, default=30, help="seconds of training in each round")
    parser.add_argument(
        "--one", nargs=5, metavar=("STAGE", "TASK", "RAW", "OUT", "SECONDS"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.one:
        what, name, raw, out, seconds = options.one
        print(json.dumps(one(what, name, Path(raw), Path(out), float(seconds))))
        return
    sizes = {"image_classification": options.images, "spoken_words": round(options.hours * 3600)}
    for name in options.tasks:
        with tempfile.TemporaryDirectory() as scratch:
            measure(name, Path(scratch), sizes[name], options)


def measure(name: str, scratch: Path, files: int, options: argparse.Namespace) -> None:
    """Measure both sets of a task, and record the results after each round."""
    needed, free = files * KINDS[name].bytes_a_file, shutil.disk_usage(scratch).free
    if needed > free:
        raise SystemExit(
            f"{name}: {scratch} has {free >> 30} GiB free, and {needed >> 30} GiB are needed: "
            "reduce the set by --images or --hours"
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
        report.record(f"{report.LARGE}{name}", found)


if __name__ == "__main__":
    main()
