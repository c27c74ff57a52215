"""Labelled images in any layout -> uint8 arrays, labels and names, and the facts that a network needs."""

import logging
import statistics
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from components.contracts import Manifest, Part, RejectedFile
from components.datasets import groups, ingest, raw_files
from components.datasets.ingest import Unusable
from components.images.decoding.decode import decode
from components.images.labels import folders
from components.images.labels.image_lists import Listing
from components.images.labels.layouts import Format, Source
from components.images.params import ImagePrepareParams

log = logging.getLogger("pedigree.prepare")

PEEKED = 1000
"""Maximum number of training files that are inspected for `auto`."""
SMALLEST, LARGEST = 28, 224
"""Limits of the side in pixels that `size: auto` selects."""


class Facts(BaseModel):
    """Facts about the images that a network and its callers need."""

    model_config = ConfigDict(frozen=True)

    classes: list[str] = Field(description="Sorted; a label is an index into this list")
    channels: int
    size: int = Field(description="Side in pixels")
    mean: list[float] = Field(description="Mean of each channel in the training split, pixels scaled to 0..1")
    std: list[float] = Field(description="Standard deviation of each channel, at least one grey level")
    counts: dict[str, dict[str, int]] = Field(description="Images by split and class")
    # Older manifests have none of these.
    group: str = Field(
        default="",
        description="Regular expression that finds the group in a file's name; empty if test was not drawn by it",
    )
    format: Format = Field(default="folders", description="Layout of the raw folder")


@dataclass(frozen=True)
class Written:
    """The arrays of all splits."""

    channels: int
    size: int
    parts: Mapping[str, ingest.Part]
    """By split."""
    rejected: list[RejectedFile]
    """Sorted by file."""


def write(raw: Path, out: Path, source: Source, options: ImagePrepareParams, per_class: int = 0) -> Written:
    """Write each split's images (N, C, H, W), labels (N,) and names into the empty folder `out`.

    Without a folder of validation, val is a share of each class of train; likewise test, before val. Memory holds a
    few images, the file names of one class, or of all if test is drawn or there is a list of them, and about 150
    bytes for each test and val file.

    Args:
        raw: The raw folder.
        out: An empty folder.
        source: The raw folder's images.
        options: How they become arrays, and how splits are drawn.
        per_class: Images of each class, drawn by the seed, to which train and what is drawn from it are limited; 0
            for all.

    Raises:
        PedigreeError: too many files cannot be used, or a class has no image left.
    """
    survey = source.survey
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings name no file; problems that matter become rejections
        channels, size = _form(source, options)
        parts, rejected = _write(raw, out, source, (channels, size, size), options, per_class)
    if isinstance(survey, folders.Survey) or not survey.several:
        given = {split: survey.counts.get(split, survey.counts["train"]) for split in parts}
        ingest.check_classes(raw, parts, survey.classes, given, "image")
    return Written(channels, size, parts, rejected)


def facts(source: Source, written: Written) -> Facts:
    """Return the facts about written images."""
    mean, std = _statistics(written.parts["train"], written.size)
    return Facts(
        classes=source.survey.classes,
        channels=written.channels,
        size=written.size,
        mean=mean,
        std=std,
        counts=ingest.class_counts(written.parts, source.survey.classes),
        group=source.survey.group,
        format=source.format,
    )


def manifest(
    task: str, raw: Path, out: Path, source: Source, written: Written, facts: Facts, splits: dict[str, Part]
) -> Manifest:
    """Return the manifest of written images."""
    survey = source.survey
    return Manifest(
        task=task,
        splits=splits,
        rejected=written.rejected,
        ignored=sorted([*raw_files.about(raw), *survey.ignored]),
        facts=facts.model_dump(),
        drawn=ingest.drawn(survey.drawn, sum(survey.counts["test"].values()), written.parts["test"]),
        note="; ".join(filter(None, (raw_files.composed(raw, "images"), survey.note, *_shared(raw, out, survey)))),
    )


def _shared(raw: Path, out: Path, survey: folders.Survey | Listing) -> list[str]:
    """Return a note for each split that has groups in common with val, and warn of them.

    Where test was drawn by groups, val may have a folder, or no groups that can be divided.
    """
    if not survey.group:
        return []
    groups_of = {split: folders.groups_of(ingest.file_names(out, split), survey.group) for split in ingest.ORDER}
    pairs = (("test", "val"), ("val", "train"))
    notes = [note for pair in pairs if (note := groups.shared(groups_of, *pair, "group"))]
    for note in notes:
        log.warning(
            f"{raw}: {note}: validation says little of images of other groups: put whole groups, with no image "
            f"of theirs elsewhere, into {raw}/val/<class>/"
        )
    return notes


def _form(source: Source, options: ImagePrepareParams) -> tuple[int, int]:
    """Return channels and size; `auto` derives them from training files spread evenly over all classes."""
    if options.channels != "auto" and options.size != "auto":
        return options.channels, options.size
    greys, sides = [], []
    survey = source.survey
    files = chain.from_iterable(survey.files("train", name) for name in survey.strata)
    for file in islice(files, 0, None, -(-sum(survey.counts["train"].values()) // PEEKED)):
        with suppress(Unusable, OSError):  # rejected later
            grey, side = source.peek(file, options.max_megapixels)
            greys.append(grey)
            sides.append(side)
    side = statistics.median_low(sides or [SMALLEST])
    size = min(max(side, SMALLEST), LARGEST) if options.size == "auto" else options.size
    if options.channels == "auto":
        return 1 if all(greys) else 3, size
    return options.channels, size


def _write(
    raw: Path,
    out: Path,
    source: Source,
    shape: tuple[int, int, int],
    options: ImagePrepareParams,
    per_class: int,
) -> tuple[dict[str, ingest.Part], list[RejectedFile]]:
    """Write all splits; return them by name, and the rejections sorted by file."""
    survey = source.survey
    parts: dict[str, ingest.Part] = {}
    used: dict[str, int] = {}  # for each class of train, the number of files read for val
    read = partial(_read, source.contents, shape, options.max_megapixels)
    with ingest.split_writer("image", raw, out, read, survey.total) as writer:
        for split in ingest.ORDER:
            with ingest.writing(out, split, {"images": (np.uint8, shape)}) as part:
                for label, name in enumerate(survey.strata):
                    files, wanted = _candidates(survey, split, name, options, used, per_class)
                    used[name] = writer.fill(part, label, files, wanted)
            parts[split] = part
    for file, reason in survey.strays.items():
        writer.reject(file, reason)
    return parts, writer.rejected(options.max_rejected)


def _read(
    contents: Callable[[str], bytes], shape: tuple[int, int, int], max_megapixels: float, file: str
) -> ingest.Sample:
    """Return a file's image of `shape` (C, H, W), with the sums (2, C) of its pixels and of their squares."""
    channels, size, _ = shape
    pixels = decode(contents(file), size, channels, max_megapixels)
    wide = pixels.astype(np.uint32)
    sums = np.stack([wide.sum((1, 2)), (wide * wide).sum((1, 2))])
    return ingest.Sample({"images": pixels}, ingest.digest(pixels), sums)


def _candidates(
    survey: folders.Survey | Listing,
    split: str,
    name: str,
    options: ImagePrepareParams,
    used: dict[str, int],
    per_class: int,
) -> tuple[list[str], int]:
    """Return the candidate files of a class for a split, and how many of them the split needs."""
    if split == "test" or (split == "val" and "val" in survey.counts):
        files = survey.files(split, name)
        return files, len(files)
    files = ingest.shuffled(survey.files("train", name), options.seed)[: per_class or None]
    if "val" in survey.counts:
        return sorted(files), len(files)
    if split == "val":
        return files, max(1, round(options.val_share * len(files)))
    rest = sorted(files[used[name] :])
    return rest, len(rest)


def _statistics(train: ingest.Part, size: int) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of each channel of the training images, on the scale 0..1."""
    pixels = train.rows * size * size
    assert train.sums is not None, "a training part without images"
    mean, std = [], []
    for total, squares in train.sums.T.tolist():  # Python integers, so that sums are exact
        mean.append(total / pixels / 255)
        variance = (pixels * squares - total * total) / pixels**2
        std.append(max(variance**0.5, 1.0) / 255)
    return mean, std
