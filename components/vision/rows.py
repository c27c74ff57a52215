"""Image files -> rows of a split's arrays: read ahead by threads, written in order, nothing in two splits."""

import hashlib
import logging
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from components import arrays
from components.contracts import Refusal
from components.errors import PedigreeError
from components.vision.decode import Unusable, decode

log = logging.getLogger("pedigree.prepare")

GROUP = 8
"""Files that a thread reads in one go: one by one, handing over small images costs more than reading them."""
LARGEST_FILE = 2**30
"""Bytes. 89 megapixels of uncompressed 16-bit RGBA are 712 MB: what is larger is no image."""
THREADS = os.cpu_count() or 1
QUIET_SECONDS = 5.0
"""Between two lines of progress."""


class Sample(NamedTuple):
    """What one file gives."""

    pixels: NDArray[np.uint8]  # (C, H, W)
    digest: bytes
    moments: NDArray[np.uint64]  # (2, C): sums of the pixels and of their squares


def read(raw: Path, size: int, channels: int, max_megapixels: float, file: str) -> Sample:
    """Read one file, named by its path below `raw`.

    Raises:
        Unusable: with the reason.
    """
    if re.search("[\n\r\ud800-\udfff]", file):  # surrogates stand for bytes that are not UTF-8
        raise Unusable("its name is not UTF-8, or has a line break in it")
    path = raw / file
    try:
        if not path.is_file():
            raise Unusable("a folder inside a class folder" if path.is_dir() else "not a file")
        if path.stat().st_size > LARGEST_FILE:
            raise Unusable("not an image: over a gigabyte")
        data = path.read_bytes()
    except OSError as error:
        raise Unusable(f"unreadable: {error.strerror}") from error
    pixels = decode(data, size, channels, max_megapixels)
    wide = pixels.astype(np.uint32)
    moments = np.stack([wide.sum((1, 2)), (wide * wide).sum((1, 2))])
    return Sample(pixels, hashlib.blake2b(pixels.data, digest_size=16).digest(), moments)


@dataclass
class Part:
    """One split while it is written."""

    name: str
    images: arrays.Writer
    labels: arrays.Writer
    files: TextIO
    moments: NDArray[np.uint64]  # (2, C)
    counts: Counter[int] = field(default_factory=Counter)
    """Rows by label."""

    def add(self, file: str, label: int, sample: Sample) -> None:
        """Append one row."""
        self.images.append(sample.pixels[None])
        self.labels.append(np.array([label]))
        self.files.write(f"{file}\n")
        self.moments += sample.moments
        self.counts[label] += 1


@contextmanager
def writing(out: Path, name: str, shape: tuple[int, int, int]) -> Iterator[Part]:
    """Open the files of a split whose images are (C, H, W) = `shape`."""
    with (
        arrays.Writer(out / f"{name}.images.npy", np.uint8, shape) as images,
        arrays.Writer(out / f"{name}.labels.npy", np.int64) as labels,
        (out / f"{name}.files.txt").open("w", encoding="utf-8", newline="\n") as files,
    ):
        yield Part(name, images, labels, files, np.zeros((2, shape[0]), np.uint64))


def file_names(prepared: Path, split: str) -> list[str]:
    """Return the raw files behind a split's rows, as paths below the raw folder.

    Raises:
        PedigreeError: the list is missing.
    """
    path = prepared / f"{split}.files.txt"
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        raise PedigreeError(f"{path} is missing: run prepare again") from None


@dataclass
class Filler:
    """Fills one split after another, and refuses in each what an earlier one holds."""

    out: Path
    read: Callable[[str], Sample]
    pool: ThreadPoolExecutor
    total: int
    """Files of all splits, for the lines of progress."""
    refused: list[Refusal] = field(default_factory=list)
    _seen: dict[str, dict[bytes, int]] = field(default_factory=dict)
    """Split to the digest of an image's pixels to its row."""
    _names: dict[str, list[str]] = field(default_factory=dict)
    """File names of the splits that something was a duplicate of."""
    _done: int = 0
    _told: float = field(default_factory=time.monotonic)

    def fill(self, part: Part, label: int, files: list[str], wanted: int) -> int:
        """Add rows from the first files until `wanted` were usable; return how many files that took."""
        taken = 0
        while wanted and taken < len(files):
            batch = files[taken : taken + wanted]
            before = part.images.rows
            for file, outcome in _ahead(self.pool, self.read, batch):
                self._add(part, label, file, outcome)
            wanted -= part.images.rows - before
            taken += len(batch)
        return taken

    def refuse(self, file: str, reason: str) -> None:
        """Remember a file that was left out; a name that is not UTF-8 is written with backslashes."""
        self.refused.append(Refusal(file=file.encode(errors="backslashreplace").decode(), reason=reason))

    def _add(self, part: Part, label: int, file: str, outcome: Sample | str) -> None:
        if isinstance(outcome, Sample):
            outcome = self._duplicate(part.name, outcome.digest) or outcome
        if isinstance(outcome, str):
            self.refuse(file, outcome)
        else:
            if part.name != "train":  # which is the last: nothing will be compared with it
                self._seen.setdefault(part.name, {}).setdefault(outcome.digest, part.images.rows)
            part.add(file, label, outcome)
        self._tell()

    def _duplicate(self, split: str, digest: bytes) -> str | None:
        """Return the reason to refuse an image that an earlier split holds."""
        for earlier, rows in self._seen.items():
            if earlier != split and digest in rows:
                if earlier not in self._names:
                    self._names[earlier] = file_names(self.out, earlier)
                return f"duplicate of the {earlier} image {self._names[earlier][rows[digest]]}"
        return None

    def _tell(self) -> None:
        self._done += 1
        if time.monotonic() - self._told > QUIET_SECONDS:
            self._told = time.monotonic()
            log.info(f"prepare vision: {self._done:,} of {self.total:,} files, {len(self.refused):,} refused")


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[str], Sample], files: list[str]
) -> Iterator[tuple[str, Sample | str]]:
    """Yield each file with its sample, or with the reason why not, in order, while the next are being read."""
    waiting: deque[Future[list[tuple[str, Sample | str]]]] = deque()
    for start in range(0, len(files), GROUP):
        waiting.append(pool.submit(_read_group, read, files[start : start + GROUP]))
        if len(waiting) > THREADS + 1:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _read_group(read: Callable[[str], Sample], files: list[str]) -> list[tuple[str, Sample | str]]:
    outcomes: list[tuple[str, Sample | str]] = []
    for file in files:
        try:
            outcomes.append((file, read(file)))
        except Unusable as reason:
            outcomes.append((file, str(reason)))
    return outcomes


@contextmanager
def filler(
    raw: Path, out: Path, shape: tuple[int, int, int], max_megapixels: float, total: int
) -> Iterator[Filler]:
    """Start the threads that read, one for each processor."""
    channels, size, _ = shape
    with ThreadPoolExecutor(THREADS) as pool:
        yield Filler(out, partial(read, raw, size, channels, max_megapixels), pool, total)
