"""Annotated images -> uint8 pixels at their own size, boxes, and the facts that the network needs."""

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from components.contracts import Manifest, Part, RejectedFile
from components.datasets import arrays, ingest, ragged, raw_files
from components.datasets.ingest import Unusable
from components.datasets.readers import ahead, readers
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.images import drawn_splits
from components.images.annotations import layout
from components.images.annotations.boxes import COLUMNS, Annotations, Picture, in_pixels
from components.images.decoding.decode import native
from components.images.decoding.headers import Header, header
from components.images.decoding.reduced import limited
from components.runtime.progress import Progress
from components.tasks.object_detection.params import DetectionParams, DetectionPrepareParams

log = logging.getLogger("pedigree.prepare")

_KEY = re.compile(r"(\d+)x(\d+) (.*)", re.DOTALL)


class DetectionFacts(BaseModel):
    """Facts about the images and boxes that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    classes: list[str] = Field(
        description="A label is an index into this list; classes of COCO in order of their ids"
    )
    ids: list[int] = Field(description="The classes' ids in COCO's files; empty for other formats")
    format: str = Field(description="coco, voc or yolo")
    origin: int = Field(description="Number of the first pixel in the annotation files, 0 or 1")
    mean: list[float] = Field(description="Mean of each channel in the training split, pixels scaled to 0..1")
    std: list[float] = Field(description="Standard deviation of each channel, at least one grey level")
    counts: dict[str, dict[str, int]] = Field(description="Boxes by split and class, without crowd regions")
    empty: dict[str, int] = Field(description="Images without a box by split")
    sizes: list[int] = Field(description="Largest height and width of a prepared image")
    cases: dict[str, int] = Field(description="How often something unusual was found and handled, by description")


class _Read(NamedTuple):
    """One image of the raw folder."""

    pixels: NDArray[np.uint8]  # (H, W, 3), at most `longest` pixels high and wide
    size: tuple[int, int]  # width and height before it was reduced
    header: Header


@dataclass
class _Part:
    """A split that is being written."""

    name: str
    images: ragged.Writer
    boxes: ragged.Writer
    sizes: arrays.Writer
    files: TextIO
    labels: Counter[int] = field(default_factory=Counter)
    empty: int = 0
    sums: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((2, 3), np.uint64))
    pixels: int = 0
    largest: tuple[int, int] = (0, 0)

    def add(self, file: str, read: _Read, boxes: NDArray[np.float64]) -> None:
        """Append an image and its boxes (N, 6), in pixels of the image before it was reduced."""
        height, width = read.pixels.shape[:2]
        scale = np.array([width / read.size[0], height / read.size[1]] * 2 + [1, 1])
        self.images.append(read.pixels)
        self.boxes.append((boxes * scale).round(2).astype(np.float32))
        self.sizes.append(np.array([read.size[::-1]], np.int64))
        self.files.write(f"{file}\n")
        own = boxes[boxes[:, 5] == 0]
        self.labels.update(own[:, 4].astype(int).tolist())
        self.empty += not len(own)
        wide = read.pixels.astype(np.uint32)
        self.sums += np.stack([wide.sum((0, 1)), (wide * wide).sum((0, 1), dtype=np.uint64)]).astype(np.uint64)
        self.pixels += height * width
        self.largest = (max(self.largest[0], height), max(self.largest[1], width))

    def described(self) -> Part:
        """Return the manifest's record of the split."""
        return Part(samples=self.sizes.rows, sha256=arrays.joint_sha256(self.images, self.boxes, self.sizes))


def survey(raw: Path, options: DetectionPrepareParams) -> drawn_splits.Drawn:
    """Read the annotations of the raw folder and divide its images, of which none is opened.

    Raises:
        PedigreeError: `layout.read` or `drawn_splits.divide` raises it.
    """
    return _divided(raw, _annotations(raw, options), options)


def _annotations(raw: Path, options: DetectionPrepareParams) -> Annotations:
    return layout.read(raw, options.format, options.box_origin, options.empty_ok)


def _divided(raw: Path, found: Annotations, options: DetectionPrepareParams) -> drawn_splits.Drawn:
    names = {split: [each.file for each in pictures] for split, pictures in found.splits.items()}
    return drawn_splits.divide(raw, names, options)


def prepare(raw: Path, out: Path, params: DetectionParams) -> Manifest:
    """Write each split's images, boxes and file names into the empty folder `out`, test before val and train.

    Boxes are float32 (N, 6): left, top, right, bottom, label, and 1 for a crowd region, otherwise 0. They are in
    pixels of the prepared image, rounded to 0.01.

    Raises:
        PedigreeError: there are no annotations, they cannot be used, or too many images cannot.
    """
    options = params.prepare
    found = _annotations(raw, options)
    divided = _divided(raw, found, options)
    pictures = {each.file: each for split in found.splits.values() for each in split}
    work = _Work(raw, out, pictures, dict(found.rejected), found.counts.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings name no file; problems that matter become rejections
        parts = work.write(divided.files, options)
    total = len(pictures) + len(found.rejected)
    rejected = [RejectedFile(file=file, reason=reason) for file, reason in sorted(work.rejected.items())]
    ingest.expect_few(raw, out, rejected, total, options.max_rejected)
    _expect_boxes(raw, parts)
    if work.cases:
        log.info(f"{raw}: {'; '.join(f'{count:,} {case}' for case, count in sorted(work.cases.items()))}")
    number = len(divided.files["test"])
    used = parts["test"].sizes.rows
    return Manifest(
        task="object_detection",
        splits={name: part.described() for name, part in parts.items()},
        rejected=rejected,
        ignored=raw_files.about(raw),
        facts=_facts(found, parts, work.cases).model_dump(),
        drawn=divided.drawn
        and (f"{divided.drawn}, of which {used:,} can be used," if used < number else divided.drawn),
        note="; ".join(filter(None, (raw_files.composed(raw, "scenes"), divided.note))),
    )


@dataclass
class _Work:
    """The preparation of a raw folder: what was rejected and found so far."""

    raw: Path
    out: Path
    pictures: Mapping[str, Picture]
    rejected: dict[str, str]
    cases: Counter[str]
    _seen: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    """A picture's digest to its split and file."""

    def write(self, files: Mapping[str, Sequence[str]], options: DetectionPrepareParams) -> dict[str, _Part]:
        """Write all splits, and log progress."""
        total, done, progress = sum(map(len, files.values())), 0, Progress(log)
        read = partial(_read, self.raw, options)
        parts = {}
        with readers(total) as pool:
            for split in ingest.ORDER:
                with _writing(self.out, split) as part:
                    keys = [_key(self.pictures[file]) for file in files[split]]
                    for file, outcome in zip(files[split], ahead(pool, read, Unusable, keys), strict=True):
                        self._add(part, file, outcome[1])
                        done += 1
                        progress.say(
                            f"{self.raw}: {done:,} of {total:,} images read, {len(self.rejected):,} rejected"
                        )
                parts[split] = part
        return parts

    def _add(self, part: _Part, file: str, outcome: _Read | str) -> None:
        if isinstance(outcome, str):
            self.rejected[file] = outcome
            return
        try:
            boxes, cases = in_pixels(self.pictures[file], *outcome.size)
        except Unusable as reason:
            self.rejected[file] = str(reason)
            return
        split, other = self._seen.setdefault(ingest.digest(outcome.pixels), (part.name, file))
        if split != part.name:
            self.rejected[file] = f"duplicate of the {split} image {other}"
            return
        part.add(file, outcome, boxes)
        self.cases.update(cases)
        self.cases.update(_cases(self.pictures[file], outcome))


def _cases(picture: Picture, read: _Read) -> Iterator[str]:
    """Yield what was unusual about an image."""
    if read.header.mode != "RGB":
        yield f"images of Pillow's mode {read.header.mode}, converted to RGB"
    if read.header.orientation != 1:
        turned = picture.size is None or picture.size == read.header.upright
        yield "images turned by their EXIF orientation" if turned else "images left as stored, as their boxes are"
    if read.size != read.pixels.shape[1::-1]:
        yield "images reduced to prepare.longest"


def _key(picture: Picture) -> str:
    """Return what `_read` needs of a picture, in one text: its annotated size, or 0x0, and its file."""
    width, height = picture.size or (0, 0)
    return f"{width}x{height} {picture.file}"


def _read(raw: Path, options: DetectionPrepareParams, key: str) -> _Read:
    match = _KEY.fullmatch(key)
    assert match is not None, "a key is made by _key"
    data = ingest.contents(raw, match[3], "an image")
    size = (int(match[1]), int(match[2]))
    pixels = native(data, 3, options.max_megapixels, size if all(size) else None).transpose(1, 2, 0)
    shape = (pixels.shape[1], pixels.shape[0])
    return _Read(limited(np.ascontiguousarray(pixels), options.longest), shape, header(data))


@contextmanager
def _writing(out: Path, split: str) -> Iterator[_Part]:
    with ExitStack() as stack:
        yield _Part(
            split,
            stack.enter_context(ragged.Writer(out / f"{split}.images", np.uint8, (3,), dimensions=2)),
            stack.enter_context(ragged.Writer(out / f"{split}.boxes", np.float32, (len(COLUMNS),))),
            stack.enter_context(arrays.Writer(out / f"{split}.sizes.npy", np.int64, (2,))),
            stack.enter_context((out / f"{split}.files.txt").open("w", encoding="utf-8", newline="\n")),
        )


def _expect_boxes(raw: Path, parts: Mapping[str, _Part]) -> None:
    for split, part in parts.items():
        if not part.sizes.rows:
            raise PedigreeError(f"{raw}: no image of {split} can be used: add images, or repair those there are")
        if not part.labels:
            raise PedigreeError(f"{raw}: no image of {split} has a box: annotate some of them")


def _facts(found: Annotations, parts: Mapping[str, _Part], cases: Counter[str]) -> DetectionFacts:
    train = parts["train"]
    mean, std = [], []
    for total, squares in train.sums.T.tolist():  # Python integers, so that sums are exact
        mean.append(total / train.pixels / 255)
        variance = (train.pixels * squares - total * total) / train.pixels**2
        std.append(max(variance**0.5, 1.0) / 255)
    largest = [max(part.largest[axis] for part in parts.values()) for axis in (0, 1)]
    return DetectionFacts(
        classes=[*found.classes],
        ids=[*found.ids],
        format=found.format,
        origin=found.origin,
        mean=mean,
        std=std,
        counts={
            split: {name: part.labels[label] for label, name in enumerate(found.classes)}
            for split, part in parts.items()
        },
        empty={split: part.empty for split, part in parts.items()},
        sizes=largest,
        cases=dict(sorted(cases.items())),
    )


def load_split(prepared: Path, split: str) -> Columns:
    """Return ragged `image`, uint8 (H, W, 3), and `boxes`, float32 (N, 6), on memory-mapped files.

    Batches of images of different sizes are made of similar areas.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    image = ragged.load(prepared / f"{split}.images")
    areas = image.shapes.prod(1)
    lengths = areas if len(areas) and bool((image.shapes != image.shapes[0]).any()) else None
    return Columns({}, {"image": image, "boxes": ragged.load(prepared / f"{split}.boxes")}, lengths)


@dataclass(frozen=True)
class Images:
    """The images of a split, as they were prepared and as they are in their files."""

    pixels: ragged.Ragged  # uint8, (H, W, 3) each
    boxes: ragged.Ragged  # float32, (N, 6) each
    sizes: Tensor  # (images, 2): height and width in the file

    def scale(self, index: int) -> NDArray[np.float64]:
        """Return the pixels of an image's file for each of its prepared pixels: x, y, x, y."""
        height, width = self.pixels.shapes[index].tolist()
        of_file, across = self.sizes[index].tolist()
        return np.array([across / width, of_file / height] * 2)

    def true(self, index: int) -> NDArray[np.float64]:
        """Return the boxes of an image, (N, 6), in pixels of its file."""
        boxes = self.boxes[index].double().numpy()
        return np.hstack([boxes[:, :4] * self.scale(index), boxes[:, 4:]])


def load_images(prepared: Path, split: str) -> Images:
    """Return the images of a split; raises as `load_split` does."""
    columns = load_split(prepared, split).ragged
    return Images(columns["image"], columns["boxes"], arrays.load(prepared / f"{split}.sizes.npy"))
