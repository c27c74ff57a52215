"""Raw files -> rows of a split's arrays: read ahead, written in order, nothing in two splits.

For every task whose samples are files that each have a class. The task says what a file becomes (`read`), which
files are candidates for which split and class, and what it calls a sample, such as "image" or "clip" (`noun`).
"""

import base64
import binascii
import hashlib
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from components import arrays
from components.contracts import Refusal, Split
from components.errors import PedigreeError
from components.files import write_json
from components.readers import Readers, ahead, readers

log = logging.getLogger("pedigree.prepare")

ORDER = ("test", "val", "train")
"""Of writing. What an earlier split holds is refused in a later one, so that test never loses a sample."""
LARGEST_FILE = 2**30
"""Bytes. 89 megapixels of uncompressed 16-bit RGBA are 712 MB, an hour of 16-bit stereo 635 MB."""
QUIET_SECONDS = 5.0
"""Between two lines of progress."""
SYSTEM_FILES = ("thumbs.db", "desktop.ini")
"""What Windows leaves in folders; what begins with a dot is passed over too."""


class Unusable(ValueError):  # noqa: N818 (it reads as what the file is)
    """A file that gives no sample; the text is the reason."""


class Sample(NamedTuple):
    """What one file gives."""

    rows: Mapping[str, NDArray[Any]]
    """One row for each of the split's arrays, by name."""
    digest: bytes
    """Equal for two files that hold the same sample."""
    sums: NDArray[np.uint64] | None = None
    """Added up over the split, exactly; of one shape in all samples."""


def visible(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield names in a folder, and whether each is a folder, in no particular order; no hidden or system files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if shown(entry.name):
                yield entry.name, entry.is_dir()


def shown(name: str) -> bool:
    """Tell whether people see a file or folder of this name: it is neither hidden nor one of the system's."""
    return not name.startswith(".") and name.lower() not in SYSTEM_FILES


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Return names in the order of a hash: those added later hardly move others between the parts cut from it."""
    return sorted(
        names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest()
    )


def contents(raw: Path, file: str, kind: str) -> bytes:
    """Return the bytes of a file, named by its path below `raw`, that should be `kind`, such as "an image".

    Raises:
        Unusable: it has no name that can stand in a list, is no file, is over a gigabyte or cannot be read.
    """
    if re.search("[\n\r\ud800-\udfff]", file):  # surrogates stand for bytes that are not UTF-8
        raise Unusable("its name is not UTF-8, or has a line break in it")
    path = raw / file
    try:
        if not path.is_file():
            raise Unusable("a folder inside a class folder" if path.is_dir() else "not a file")
        if path.stat().st_size > LARGEST_FILE:
            raise Unusable(f"not {kind}: over a gigabyte")
        return path.read_bytes()
    except OSError as error:
        raise Unusable(f"unreadable: {error.strerror}") from error


def sent(value: Any, column: str) -> bytes:
    """Return the bytes of a file that a caller of a served model sent, as they are or in base64 or a data URL.

    Raises:
        Unusable: it is neither.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise Unusable(f"expected bytes or base64 in the column {column} and found {type(value).__name__}")
    text = value.partition(",")[2] if value.startswith("data:") else value  # data:image/png;base64,…
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("the text is not base64") from None


def digest(values: NDArray[Any]) -> bytes:
    """Return 16 bytes that tell a contiguous array's values from any others."""
    return hashlib.blake2b(values.data, digest_size=16).digest()


@dataclass
class Part:
    """One split while it is written."""

    name: str
    columns: Mapping[str, arrays.Writer]
    labels: arrays.Writer
    files: TextIO
    sums: NDArray[np.uint64] | None = None
    """Of the samples' sums, if they have any."""
    counts: Counter[int] = field(default_factory=Counter)
    """Rows by label."""

    @property
    def rows(self) -> int:
        """Samples so far."""
        return self.labels.rows

    def add(self, file: str, label: int, sample: Sample) -> None:
        """Append one row."""
        for name, writer in self.columns.items():
            writer.append(sample.rows[name][None])
        self.labels.append(np.array([label]))
        self.files.write(f"{file}\n")
        if sample.sums is not None:
            self.sums = sample.sums if self.sums is None else self.sums + sample.sums
        self.counts[label] += 1

    def described(self) -> Split:
        """Return what the manifest says of the split."""
        return Split(samples=self.rows, sha256=arrays.joint_sha256(*self.columns.values(), self.labels))


@contextmanager
def writing(out: Path, split: str, columns: Mapping[str, tuple[DTypeLike, tuple[int, ...]]]) -> Iterator[Part]:
    """Open a split's files: <split>.<name>.npy for each column, of that type and row shape; labels; file names."""
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(arrays.Writer(out / f"{split}.{name}.npy", dtype, shape))
            for name, (dtype, shape) in columns.items()
        }
        labels = stack.enter_context(arrays.Writer(out / f"{split}.labels.npy", np.int64))
        names = (out / f"{split}.files.txt").open("w", encoding="utf-8", newline="\n")
        yield Part(split, writers, labels, stack.enter_context(names))


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
    """Fills one split after another, in `ORDER`, and refuses in each what an earlier one holds.

    Memory holds the samples that are being read, and some 150 bytes for each row of test and val.
    """

    task: str
    noun: str
    """A sample, as people call it: "image"."""
    raw: Path
    out: Path
    read: Callable[[str], Sample]
    """A file, named by its path below `raw`, to its sample; raises Unusable. Called in threads or processes."""
    total: int
    """Files of all splits, for the lines of progress and the share of refusals."""
    readers: Readers
    _refused: list[Refusal] = field(default_factory=list)
    _seen: dict[str, dict[bytes, int]] = field(default_factory=dict)
    """Split to a sample's digest to its row."""
    _names: dict[str, list[str]] = field(default_factory=dict)
    """File names of the splits that something was a duplicate of."""
    _done: int = 0
    _told: float = field(default_factory=time.monotonic)

    def fill(self, part: Part, label: int, files: Sequence[str], wanted: int | None = None) -> int:
        """Add rows of a class from the first files until `wanted` were usable; return how many files that took."""
        wanted, taken = len(files) if wanted is None else wanted, 0
        while wanted and taken < len(files):
            batch = files[taken : taken + wanted]
            before = part.rows
            for file, outcome in ahead(self.readers, self.read, Unusable, batch):
                self._add(part, label, file, outcome)
            wanted -= part.rows - before
            taken += len(batch)
        return taken

    def refuse(self, file: str, reason: str) -> None:
        """Remember a file that was left out; a name that is not UTF-8 is written with backslashes."""
        self._refused.append(Refusal(file=file.encode(errors="backslashreplace").decode(), reason=reason))

    def refused(self, limit: float) -> list[Refusal]:
        """Return all refusals, sorted by file.

        Raises:
            PedigreeError: they are more than the share `limit` of the files; refused.json beside the folder
                `out` then holds them all.
        """
        found = sorted(self._refused, key=lambda refusal: refusal.file)
        path = self.out.parent / "refused.json"
        if len(found) <= limit * self.total:
            path.unlink(missing_ok=True)  # of an earlier attempt
            return found
        write_json(path, [refusal.model_dump() for refusal in found])
        raise PedigreeError(
            f"{self.raw}: {len(found):,} of {self.total:,} files cannot be used, "
            f"more than prepare.max_refused {limit:g}:\n{_commonest(found, self.noun)}\n"
            f"mend or remove them (the whole list is in {path}), or raise prepare.max_refused"
        )

    def _add(self, part: Part, label: int, file: str, outcome: Sample | str) -> None:
        if isinstance(outcome, Sample):
            outcome = self._duplicate(part.name, outcome.digest) or outcome
        if isinstance(outcome, str):
            self.refuse(file, outcome)
        else:
            if part.name != ORDER[-1]:  # nothing will be compared with it
                self._seen.setdefault(part.name, {}).setdefault(outcome.digest, part.rows)
            part.add(file, label, outcome)
        self._tell()

    def _duplicate(self, split: str, digest: bytes) -> str | None:
        """Return the reason to refuse a sample that an earlier split holds."""
        for earlier, rows in self._seen.items():
            if earlier != split and digest in rows:
                if earlier not in self._names:
                    self._names[earlier] = file_names(self.out, earlier)
                return f"duplicate of the {earlier} {self.noun} {self._names[earlier][rows[digest]]}"
        return None

    def _tell(self) -> None:
        self._done += 1
        if time.monotonic() - self._told > QUIET_SECONDS:
            self._told = time.monotonic()
            log.info(f"prepare {self.task}: {self._done:,} of {self.total:,} files, {len(self._refused):,} refused")


@contextmanager
def filling(
    task: str, noun: str, raw: Path, out: Path, read: Callable[[str], Sample], total: int
) -> Iterator[Filler]:
    """Start what reads, on each processor, and give what fills the splits in the folder `out`."""
    with readers(total) as by:
        yield Filler(task, noun, raw, out, read, total, by)


def _commonest(refused: list[Refusal], noun: str) -> str:
    kinds: dict[str, list[Refusal]] = {}
    for refusal in refused:  # "unreadable: …" and "duplicate of the test image …" are one kind each
        kinds.setdefault(re.split(f": | {noun} ", refusal.reason)[0], []).append(refusal)
    common = sorted(kinds.values(), key=len, reverse=True)[:5]
    return "\n".join(f"  {len(kind):,} like {kind[0].file}: {kind[0].reason}" for kind in common)


def check_classes(
    raw: Path, parts: Mapping[str, Part], classes: Sequence[str], given: Mapping[str, Collection[str]], noun: str
) -> None:
    """Check that each split still has a sample of each class that was `given` for it.

    Raises:
        PedigreeError: it has not.
    """
    for split, part in parts.items():
        lost = [name for label, name in enumerate(classes) if name in given[split] and not part.counts[label]]
        if lost:
            raise PedigreeError(
                f"{raw}: {split} has no {noun} left of {listed(lost)}: all were refused or went to "
                f"another split: add {noun}s, or remove the class"
            )


def class_counts(parts: Mapping[str, Part], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the samples by split and class."""
    return {
        split: {name: part.counts[label] for label, name in enumerate(classes)} for split, part in parts.items()
    }


def listed(names: Sequence[str]) -> str:
    """Return `a, b, c`, and from the sixth name on only how many more there are."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
