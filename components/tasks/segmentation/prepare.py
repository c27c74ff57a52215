"""Images and masks -> ragged uint8 arrays, file names, and the facts that the network needs."""

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from components.contracts import Manifest, RejectedFile
from components.contracts import Part as Described
from components.datasets import arrays, ingest, ragged, raw_files, readers
from components.datasets.ingest import Unusable
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.images.decoding import decode, reduced
from components.images.decoding.headers import Header, header
from components.images.masks import cityscapes_classes, mask_files, mask_layouts, regions, voc_classes
from components.images.masks.mask_layouts import Annotated, Survey
from components.runtime.progress import Progress
from components.tasks.segmentation.params import SegmentationParams, SegmentationPrepareParams

log = logging.getLogger("pedigree.prepare")

IMAGE, MASK = "image", "mask"
BINARY = {"background": 0, "foreground": 255}
Labels = mask_files.Labels


class SegmentationFacts(BaseModel):
    """Facts about the images and masks that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    classes: list[str] = Field(description="In the order of their numbers; the label k + 1 is an index k into this")
    layout: str = Field(description="Layout in which the raw folder was read")
    mean: list[float] = Field(description="Mean of each channel in the training split, pixels scaled to 0..1")
    std: list[float] = Field(description="Standard deviation of each channel, at least one grey level")
    pixels: dict[str, list[int]] = Field(description="Pixels by split and class")
    shares: list[float] = Field(description="Share of each class in the labelled pixels of training images with it")
    cases: dict[str, int] = Field(description="How often what was found that a format is known for")
    group: str = Field(
        description="Pattern that finds the group in a file's name; empty if test was not drawn by it"
    )


class Sample(NamedTuple):
    """An image and its mask."""

    pixels: NDArray[np.uint8]  # (H, W, 3)
    labels: Labels  # (H, W), of another size in the test split if the image was made smaller
    digest: bytes
    """Of the image at its own size."""
    cases: Sequence[str]
    """What is to be counted."""


def survey(raw: Path, options: SegmentationPrepareParams) -> Survey:
    """List the raw folder without opening images."""
    return mask_layouts.survey(raw, options, options.format)


def prepare(raw: Path, out: Path, params: SegmentationParams) -> Manifest:
    """Write each split's images (H, W, 3), masks (H, W) and file names into the empty folder `out`.

    Masks of the test split have the size of the raw image even if images are limited to `prepare.longest`. Memory
    holds a few images, and about 100 bytes for each file.

    Raises:
        PedigreeError: the raw folder is inconsistent, or too many files cannot be used.
    """
    options = params.prepare
    found = survey(raw, options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings name no file; problems that matter become rejections
        with readers.readers(found.total) as pool:
            table = _table(raw, found, options, pool)
            written = _write(raw, out, found, table, options, pool)
    rejected = [RejectedFile(file=file, reason=reason) for file, reason in sorted(written.rejected.items())]
    ingest.expect_few(raw, out, rejected, found.total, options.max_rejected)
    parts = written.parts
    for split, part in parts.items():
        if not part.rows:
            raise PedigreeError(f"{raw}: {split} has no image left: all were rejected: repair them, or add others")
        if not part.pixels.any():
            raise PedigreeError(
                f"{raw}: no image of {split} has a pixel with a class: label some, or take these images out of the "
                "folder, so that others are drawn"
            )
    if absent := [name for name, count in zip(table.classes, parts["train"].pixels, strict=True) if not count]:
        log.warning(f"{raw}: no training image has a pixel of {raw_files.listed(absent)}, which cannot be learnt")
    return Manifest(
        task="segmentation",
        splits={split: part.described() for split, part in parts.items()},
        rejected=rejected,
        ignored=[*raw_files.about(raw), *found.ignored],
        facts=_facts(written, found, table.classes).model_dump(),
        drawn=_drawn(found, parts["test"].rows),
        note="; ".join(filter(None, (raw_files.composed(raw, "scenes"), found.note))),
    )


def _drawn(found: Survey, usable: int) -> str:
    """Return what was drawn for testing, and how many images of it can be used if not all."""
    every = usable == len(found.splits["test"])
    return found.drawn if every or not found.drawn else f"{found.drawn}, of which {usable:,} can be used,"


def load_split(prepared: Path, split: str) -> Columns:
    """Return `image`, uint8 (H, W, 3), and `mask`, uint8 (H, W), both ragged, on memory-mapped files.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    return Columns({}, {name: ragged.load(prepared / f"{split}.{name}") for name in (IMAGE, MASK)})


def _table(raw: Path, found: Survey, options: SegmentationPrepareParams, pool: readers.Readers) -> mask_files.Table:
    """Return the classes of the masks.

    Raises:
        PedigreeError: they have to be named, as masks have no classes of their own.
    """
    if found.layout == "coco":
        return mask_files.Table(found.classes, {}, {})
    if found.layout == "instances":
        return mask_files.from_values(BINARY, ())
    if options.classes == "auto":
        own = {"voc": voc_classes.TABLE, "cityscapes": cityscapes_classes.TABLE}
        return own.get(found.layout) or _guessed(raw, found, options, pool)
    named = options.numbered().items()
    numbers = {name: each for name, each in named if isinstance(each, int)}
    colours = {name: each for name, each in named if not isinstance(each, int)}
    if colours:
        return mask_files.from_colours(colours, () if isinstance(options.ignore, int | str) else (options.ignore,))
    return mask_files.from_values(numbers, _ignored(options, mask_files.VOID in numbers.values()))


def _ignored(options: SegmentationPrepareParams, is_class: bool) -> tuple[int, ...]:
    if options.ignore == "auto":
        return () if is_class else (mask_files.VOID,)
    return (options.ignore,) if isinstance(options.ignore, int) else ()


def _guessed(
    raw: Path, found: Survey, options: SegmentationPrepareParams, pool: readers.Readers
) -> mask_files.Table:
    """Return the classes that the numbers in the training masks tell."""
    numbers: set[int] = set()
    files = [each.masks[0] for each in found.splits["train"]]
    for file, outcome in readers.ahead(pool, partial(_values, raw, options.max_megapixels), Unusable, files):
        if isinstance(outcome, str):
            log.info(f"{raw / file}: {outcome}")  # rejected later
        else:
            numbers.update(outcome)
    if not numbers:
        raise PedigreeError(
            f"{raw}: no mask has numbers: name the colour of each class in prepare.classes, as in "
            "{road: [128, 64, 128]}"
        )
    if options.ignore == "auto" and mask_files.VOID in numbers and numbers <= {0, mask_files.VOID}:
        return mask_files.from_values(BINARY, ())
    ignored = _ignored(options, False)
    left = sorted(numbers - {*ignored})
    if left != list(range(len(left))) or not 2 <= len(left) <= mask_files.MOST:
        raise PedigreeError(
            f"{raw}: the training masks have the numbers {raw_files.listed([str(each) for each in left])}, not all "
            "from 0 on: name the number of each class in prepare.classes, as in {road: 7, car: 26}, and that of "
            "pixels without a class in prepare.ignore"
        )
    names = [*BINARY] if len(left) == 2 else [str(each) for each in left]
    return mask_files.from_values(dict(zip(names, left, strict=True)), ignored)


def _values(raw: Path, max_megapixels: float, file: str) -> list[int]:
    return mask_files.values(ingest.contents(raw, file, "a mask"), max_megapixels)


@dataclass
class _Part:
    """A split that is being written."""

    image: ragged.Writer
    mask: ragged.Writer
    files: TextIO
    pixels: NDArray[np.int64]
    """Pixels of each class, (K,)."""
    present: NDArray[np.int64]
    """Labelled pixels of the images that have the class, (K,)."""
    levels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    """Pixels of each value, by channel."""

    @property
    def rows(self) -> int:
        return self.image.rows

    def add(self, file: str, sample: Sample) -> None:
        """Append an image."""
        self.image.append(sample.pixels)
        self.mask.append(sample.labels)
        self.files.write(f"{file}\n")
        counts = np.bincount(sample.labels.ravel(), minlength=len(self.pixels) + 1)[1:]
        self.pixels += counts
        self.present += np.where(counts > 0, counts.sum(), 0)
        self.levels += np.stack([np.bincount(sample.pixels[..., c].ravel(), minlength=256) for c in range(3)])

    def described(self) -> Described:
        """Return the manifest's record of the split."""
        return Described(samples=self.rows, sha256=arrays.joint_sha256(self.image, self.mask))


@dataclass
class _Written:
    """What was written."""

    parts: dict[str, _Part]
    rejected: dict[str, str]
    """Reasons by file."""
    cases: Counter[str]


@contextmanager
def _writing(out: Path, split: str, classes: int) -> Iterator[_Part]:
    with ExitStack() as stack:
        image = stack.enter_context(ragged.Writer(out / f"{split}.{IMAGE}", np.uint8, (3,), 2))
        mask = stack.enter_context(ragged.Writer(out / f"{split}.{MASK}", np.uint8, (), 2))
        files = (out / f"{split}.files.txt").open("w", encoding="utf-8", newline="\n")
        zeros = np.zeros(classes, np.int64)
        yield _Part(image, mask, stack.enter_context(files), zeros, zeros.copy())


def _write(
    raw: Path,
    out: Path,
    found: Survey,
    table: mask_files.Table,
    options: SegmentationPrepareParams,
    pool: readers.Readers,
) -> _Written:
    """Write all splits."""
    written = _Written({}, dict(found.strays), Counter(found.cases))
    seen: dict[bytes, Annotated] = {}
    progress, done = Progress(log), 0
    for split in ingest.ORDER:
        earlier = dict(seen)
        with _writing(out, split, len(table.classes)) as part:
            read = partial(_read, raw, table, options, split == "test")
            for each, outcome in readers.ahead(pool, read, Unusable, found.splits[split]):
                if isinstance(outcome, str):
                    written.rejected[each.image] = outcome
                elif outcome.digest in earlier:
                    image = earlier[outcome.digest].image
                    written.rejected[each.image] = f"duplicate of an image of an earlier split: {image}"
                else:
                    part.add(each.image, outcome)
                    written.cases.update(outcome.cases)
                    seen.setdefault(outcome.digest, each)
                done += 1
                progress.say(f"{raw}: {done:,} of {found.total:,} images read, {len(written.rejected):,} rejected")
        written.parts[split] = part
    return written


def _read(
    raw: Path, table: mask_files.Table, options: SegmentationPrepareParams, native: bool, each: Annotated
) -> Sample:
    """Return an image and its mask, which keeps its own size if it is to be `native`."""
    data = ingest.contents(raw, each.image, "an image")
    labels, cases = _labels(raw, table, options.max_megapixels, each)
    size = each.size if labels is None else (labels.shape[1], labels.shape[0])
    planes = decode.native(data, 3, options.max_megapixels, size)
    pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
    if labels is None:
        labels, cases = regions.painted(each.regions, *pixels.shape[:2])
    digest = ingest.digest(pixels)
    cases = [*cases, *_conversions(header(data), pixels)]
    if options.longest != "native":
        pixels = reduced.limited(pixels, options.longest)
        labels = labels if native else reduced.nearest(labels, *pixels.shape[:2])
    return Sample(pixels, labels, digest, cases)


def _conversions(described: Header, pixels: NDArray[np.uint8]) -> Iterator[str]:
    """Yield what was unusual about an image, given its header and its pixels (H, W, 3)."""
    if described.mode != "RGB":
        yield f"images of Pillow's mode {described.mode}, converted to RGB"
    if described.orientation != 1:
        upright = described.upright == pixels.shape[1::-1]
        yield "images turned by their EXIF orientation" if upright else "images left as stored, as their masks are"


def _labels(
    raw: Path, table: mask_files.Table, max_megapixels: float, each: Annotated
) -> tuple[Labels | None, list[str]]:
    """Return the labels that mask files give and what is to be counted; no labels if there are regions instead."""
    instances = []
    for file in each.masks:
        try:
            data = ingest.contents(raw, file, "a mask")
            if not each.instances:
                return mask_files.labels(data, table, max_megapixels)
            instances.append(mask_files.binary(data, max_megapixels))
        except Unusable as reason:
            raise Unusable(f"{reason} (in {file})") from None
    return (mask_files.merged(instances), []) if instances else (None, [])


def _facts(written: _Written, found: Survey, classes: Sequence[str]) -> SegmentationFacts:
    train = written.parts["train"]
    mean, std = [], []
    for levels in train.levels.tolist():  # Python integers, so that sums are exact
        area = sum(levels)
        total = sum(level * count for level, count in enumerate(levels))
        squares = sum(level * level * count for level, count in enumerate(levels))
        mean.append(total / area / 255)
        variance = (area * squares - total * total) / area**2
        std.append(max(variance**0.5, 1.0) / 255)
    pairs = zip(train.pixels.tolist(), train.present.tolist(), strict=True)
    return SegmentationFacts(
        classes=list(classes),
        layout=found.layout,
        mean=mean,
        std=std,
        pixels={split: part.pixels.tolist() for split, part in written.parts.items()},
        shares=[count / total if total else 0.0 for count, total in pairs],
        cases=dict(sorted(written.cases.items())),
        group=found.group,
    )
