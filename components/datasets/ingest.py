"""Raw files -> rows of a split's arrays: read in parallel, written in order, without duplicates across splits.

This serves tasks whose samples are files with one class each. A task provides the function that reads a file
(`read`), the candidates for each split and class, and its word for a sample, such as "image" or "clip" (`noun`).
"""

import base64
import binascii
import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from numpy.typing import DTypeLike, NDArray

from components.contracts import Part as Described
from components.contracts import RejectedFile, Row
from components.datasets import arrays
from components.datasets.raw_files import listed
from components.datasets.readers import Readers, ahead, readers
from components.errors import PedigreeError
from components.runtime.files import write_json
from components.runtime.progress import Progress

log = logging.getLogger("pedigree.prepare")

ORDER = ("test", "val", "train")
"""Order of writing. Samples of an earlier split are rejected in later ones, so that test never loses a sample."""
LARGEST_FILE = 2**30
"""Largest file in bytes. 89 megapixels of uncompressed 16-bit RGBA are 712 MB, an hour of 16-bit stereo 635 MB."""
POINTERS = {
    rb"(\xef\xbb\xbf)?version https?://(git-lfs|hawser)\.github\.com/spec/v": "a Git LFS pointer, not its file: "
    "run `git lfs pull`",
    rb"/annex/objects/": "a git-annex pointer, not its file: run `git annex get`",
}
"""Small texts that stand for a clone's files, by their beginning (Git LFS's spec.md; git-annex's pointer file)."""
DATA_URL = "data:"
"""How a data URL begins, such as `data:image/png;base64,` and the file (RFC 2397)."""


class Unusable(ValueError):  # noqa: N818 (it describes the file)
    """A file cannot become a sample; the message is the reason."""


class Sample(NamedTuple):
    """The sample of one file."""

    rows: Mapping[str, NDArray[Any]]
    """One row for each of the split's arrays, by name."""
    digest: bytes
    """Equal for two files with the same sample."""
    sums: NDArray[np.uint64] | None = None
    """Added up over the split without rounding; all samples have the same shape of sums."""


def shuffled(names: Iterable[str], seed: int, number: int = 0) -> list[str]:
    """Return names in the order of their hashes, so that adding names later hardly moves others between splits.

    Each `number` is another order.
    """
    salt = f"{seed} {number}" if number else f"{seed}"
    return sorted(
        names, key=lambda name: hashlib.sha256(f"{salt} {name}".encode(errors="surrogateescape")).digest()
    )


def contents(raw: Path, file: str, kind: str) -> bytes:
    """Return the bytes of a file.

    Args:
        raw: The raw folder.
        file: The file's path below `raw`.
        kind: What the file should be, such as "an image".

    Raises:
        Unusable: it is not a file but, for instance, a pointer to it, or it is over a gigabyte or unreadable.
    """
    path = raw / file
    try:
        if not path.is_file():
            raise Unusable("a folder inside a class folder" if path.is_dir() else "not a file")
        if path.stat().st_size > LARGEST_FILE:
            raise Unusable(f"not {kind}: over a gigabyte")
        return not_pointer(path.read_bytes())
    except OSError as error:
        raise Unusable(f"unreadable: {error.strerror}") from error


def file_rows(prepared: Path, raw: Path, column: str, read: Callable[[str], bytes]) -> Iterator[Row]:
    """Yield the file of each test sample as a row of a request, in the order of the prepared split.

    Args:
        prepared: The prepared folder.
        raw: The raw folder from which it was made.
        column: The column of a request that takes a file.
        read: Returns the bytes of a file by its path below the raw folder, as `contents` does.

    Raises:
        PedigreeError: a file can no longer be read.
    """
    for file in file_names(prepared, "test"):
        try:
            yield {column: read(file)}
        except Unusable as reason:
            raise PedigreeError(f"{raw / file} is a test sample, and {reason}: restore it") from None


def not_pointer(data: bytes) -> bytes:
    """Return a file's bytes; raise Unusable if they only stand for a file that was not downloaded."""
    for beginning, reason in POINTERS.items():
        if re.match(beginning, data):
            raise Unusable(reason)
    return data


def sent(value: Any, column: str) -> bytes:
    """Return the bytes of a file in a request to a served model, sent as bytes, in base64 or as a data URL.

    Base64 may have line breaks, the alphabet for URLs, and no padding (RFC 4648); a data URL may be percent-encoded
    instead (RFC 2397).

    Raises:
        Unusable: the value has none of these forms, or is a pointer to a file.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return not_pointer(bytes(value))
    if not isinstance(value, str):
        raise Unusable(f"expected bytes, base64 or a data URL in the column {column} and found {named(value)}")
    head, comma, text = value.partition(",")
    head = head.strip().casefold() if comma else ""
    if not head.startswith(DATA_URL):
        return not_pointer(_from_base64(value, "the text is neither base64 nor a data URL"))
    _, semicolon, last = head.rpartition(";")
    if semicolon and last.strip() == "base64":
        return not_pointer(_from_base64(unquote(text), "the text of the data URL is not base64"))
    return not_pointer(unquote_to_bytes(text))


def _from_base64(text: str, otherwise: str) -> bytes:
    digits = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable(f"{otherwise}; send the file in base64") from None


def named(value: Any) -> str:
    """Return what a request holds in place of what was expected: "null" for no value, which pandas makes NaN."""
    nothing = value is None or (isinstance(value, float) and math.isnan(value))
    return "null" if nothing else type(value).__name__


def digest(values: NDArray[Any]) -> bytes:
    """Return a 16-byte hash of a contiguous array's values."""
    return hashlib.blake2b(values.data, digest_size=16).digest()


@dataclass
class Part:
    """A split that is being written."""

    name: str
    columns: Mapping[str, arrays.Writer]
    labels: arrays.Writer
    files: TextIO
    sums: NDArray[np.uint64] | None = None
    """Total of the samples' sums, if they have any."""
    counts: Counter[int] = field(default_factory=Counter)
    """Number of rows by label."""

    @property
    def rows(self) -> int:
        """Number of samples so far."""
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

    def described(self) -> Described:
        """Return the manifest's record of the split."""
        return Described(samples=self.rows, sha256=arrays.joint_sha256(*self.columns.values(), self.labels))


@contextmanager
def writing(out: Path, split: str, columns: Mapping[str, tuple[DTypeLike, tuple[int, ...]]]) -> Iterator[Part]:
    """Open a split's files: <split>.<name>.npy for each column of a type and row shape, labels, and file names."""
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(arrays.Writer(out / f"{split}.{name}.npy", dtype, shape))
            for name, (dtype, shape) in columns.items()
        }
        labels = stack.enter_context(arrays.Writer(out / f"{split}.labels.npy", np.int64))
        names = (out / f"{split}.files.txt").open("w", encoding="utf-8", newline="\n")
        yield Part(split, writers, labels, stack.enter_context(names))


def file_names(prepared: Path, split: str) -> list[str]:
    """Return the raw file of each row of a split, as paths below the raw folder.

    Raises:
        PedigreeError: the list is missing.
    """
    path = prepared / f"{split}.files.txt"
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        raise PedigreeError(f"{path} is missing: run prepare again") from None


@dataclass
class SplitWriter:
    """Fills one split after another, in `ORDER`, and rejects duplicates of samples in earlier splits.

    Memory holds the samples that are being read, and about 150 bytes for each row of test and val.
    """

    noun: str
    """The task's word for a sample, such as "image"."""
    raw: Path
    out: Path
    read: Callable[[str], Sample]
    """Maps a file's path below `raw` to its sample, or raises Unusable. Called in threads or processes."""
    total: int
    """Files of all splits, for the lines of progress and the share of rejections."""
    readers: Readers
    _rejected: list[RejectedFile] = field(default_factory=list)
    _seen: dict[str, dict[bytes, int]] = field(default_factory=dict)
    """Split to a sample's digest to its row."""
    _names: dict[str, list[str]] = field(default_factory=dict)
    """File names of the splits that something was a duplicate of."""
    _done: int = 0
    _progress: Progress = field(default_factory=lambda: Progress(log))

    def fill(self, part: Part, label: int, files: Sequence[str], wanted: int | None = None) -> int:
        """Add rows of a class until `wanted` files were usable; return how many of the files were read."""
        wanted, position = len(files) if wanted is None else wanted, 0
        while wanted and position < len(files):
            batch = files[position : position + wanted]
            before = part.rows
            for file, outcome in ahead(self.readers, self.read, Unusable, batch):
                self._add(part, label, file, outcome)
            wanted -= part.rows - before
            position += len(batch)
        return position

    def reject(self, file: str, reason: str) -> None:
        """Record a rejected file; bytes in its name that are not UTF-8 are escaped with backslashes."""
        self._rejected.append(RejectedFile(file=file.encode(errors="backslashreplace").decode(), reason=reason))

    def rejected(self, limit: float) -> list[RejectedFile]:
        """Return all rejections, sorted by file.

        Raises:
            PedigreeError: they are more than the share `limit` of the files; all of them are then listed in
                rejected.json beside the folder `out`.
        """
        rejected = sorted(self._rejected, key=lambda rejection: rejection.file)
        expect_few(self.raw, self.out, rejected, self.total, limit)
        return rejected

    def _add(self, part: Part, label: int, file: str, outcome: Sample | str) -> None:
        if isinstance(outcome, Sample):
            outcome = self._duplicate(part.name, outcome.digest) or outcome
        if isinstance(outcome, str):
            self.reject(file, outcome)
        else:
            if part.name != ORDER[-1]:  # no later split is compared with the last one
                self._seen.setdefault(part.name, {}).setdefault(outcome.digest, part.rows)
            part.add(file, label, outcome)
        self._report()

    def _duplicate(self, split: str, digest: bytes) -> str | None:
        """Return the reason to reject a sample that is in an earlier split, or None."""
        for earlier, rows in self._seen.items():
            if earlier != split and digest in rows:
                if earlier not in self._names:
                    self._names[earlier] = file_names(self.out, earlier)
                return f"duplicate of the {earlier} {self.noun} {self._names[earlier][rows[digest]]}"
        return None

    def _report(self) -> None:
        self._done += 1
        self._progress.say(
            f"{self.raw}: {self._done:,} of {self.total:,} files read, {len(self._rejected):,} rejected"
        )


@contextmanager
def split_writer(
    noun: str, raw: Path, out: Path, read: Callable[[str], Sample], total: int
) -> Iterator[SplitWriter]:
    """Start readers on all processors, and yield a writer for the splits in the folder `out`."""
    with readers(total) as pool:
        yield SplitWriter(noun, raw, out, read, total, pool)


def expect_few(raw: Path, out: Path, rejected: Sequence[RejectedFile], total: int, limit: float) -> None:
    """Check that at most the share `limit` of `total` files is rejected.

    Raises:
        PedigreeError: more are; all of them are then listed in rejected.json beside the folder `out`.
    """
    path = out.parent / "rejected.json"
    if len(rejected) <= limit * total:
        path.unlink(missing_ok=True)  # left by an earlier attempt
        return
    write_json(path, [rejection.model_dump() for rejection in rejected])
    raise PedigreeError(
        f"{raw}: {len(rejected):,} of {total:,} files cannot be used, "
        f"more than prepare.max_rejected {limit:g}:\n{_commonest(rejected)}\n"
        f"repair or remove them (all are listed in {path}), or raise prepare.max_rejected"
    )


def _commonest(rejected: Sequence[RejectedFile]) -> str:
    kinds = list(_by_reason(rejected).values())[:5]
    return "\n".join(f"  {len(kind):,} like {kind[0].file}: {kind[0].reason}" for kind in kinds)


def rejections(rejected: Sequence[RejectedFile]) -> str:
    """Return one line with the number of rejected files and the reasons, the most common first."""
    kinds = _by_reason(rejected)
    reasons = ", ".join(f"{len(kind):,} {reason} (such as {kind[0].file})" for reason, kind in kinds.items())
    return f"{len(rejected):,} {'file' if len(rejected) == 1 else 'files'} rejected: {reasons}"


def _by_reason(rejected: Iterable[RejectedFile]) -> dict[str, list[RejectedFile]]:
    """Group files by their reason, ignoring details of a single file, with the largest group first."""
    kinds: dict[str, list[RejectedFile]] = {}
    for each in rejected:
        # "unreadable: …" is one reason, and "duplicate of the test image …" another
        reason = re.match(r"duplicate of the \S+ \S+|[^:]*", each.reason)
        kinds.setdefault(reason[0] if reason else each.reason, []).append(each)
    return dict(sorted(kinds.items(), key=lambda kind: len(kind[1]), reverse=True))


def check_classes(
    raw: Path, parts: Mapping[str, Part], classes: Sequence[str], given: Mapping[str, Collection[str]], noun: str
) -> None:
    """Check that each split still has a sample of each class that was `given` for it.

    Raises:
        PedigreeError: a class lost all its samples of a split.
    """
    for split, part in parts.items():
        lost = [name for label, name in enumerate(classes) if name in given[split] and not part.counts[label]]
        if lost:
            raise PedigreeError(
                f"{raw}: {split} has no {noun} left of {listed(lost)}: all were rejected or went to "
                f"another split: add {noun}s, or remove the class"
            )


def drawn(what: str, number: int, part: Part) -> str:
    """Return what was drawn for testing, and how many of the `number` of files are in `part` if not all are."""
    return f"{what}, of which {part.rows:,} can be used," if part.rows < number else what


def class_counts(parts: Mapping[str, Part], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the number of samples by split and class."""
    return {
        split: {name: part.counts[label] for label, name in enumerate(classes)} for split, part in parts.items()
    }
