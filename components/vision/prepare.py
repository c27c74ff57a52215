"""Folders of image files -> uint8 arrays, labels and file names, and the facts the network needs of them."""

import statistics
import warnings
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from components import arrays, intake
from components.contracts import Batch, Manifest, Refusal
from components.intake import Unusable
from components.vision import folders
from components.vision.decode import decode, peek
from components.vision.params import VisionParams, VisionPrepareParams

PEEKED = 1000
"""Training files that decide `auto`, at most."""
SMALLEST, LARGEST = 28, 224
"""Sides in pixels between which `size: auto` chooses."""


class VisionFacts(BaseModel):
    """What the network and its callers need to know of the images."""

    model_config = ConfigDict(frozen=True)

    classes: list[str] = Field(description="Sorted; a label is a place in this list")
    channels: int
    size: int = Field(description="Side in pixels")
    mean: list[float] = Field(description="Of each channel over the training part, pixels scaled to 0..1")
    std: list[float] = Field(description="Likewise; at least one grey level, so that it can be divided by")
    counts: dict[str, dict[str, int]] = Field(description="Images by split and class")


def prepare(raw: Path, out: Path, params: VisionParams) -> Manifest:
    """Write each split's images (N, C, H, W), labels (N,) and file names into the empty folder `out`.

    Without raw/val a part of each class of train becomes val. Memory holds a few images, the names of one
    class, and some 150 bytes for each test and val file.

    Raises:
        PedigreeError: the folders do not fit together, or too many files cannot be used.
    """
    survey = folders.survey(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's name no file; what matters of them becomes a refusal
        channels, size = _form(raw, survey, params.prepare)
        parts, refused = _write(raw, out, survey, (channels, size, size), params.prepare)
    given = {split: survey.counts.get(split, survey.counts["train"]) for split in parts}
    intake.check_classes(raw, parts, survey.classes, given, "image")
    facts = _facts(parts, survey.classes, channels, size)
    splits = {name: part.described() for name, part in parts.items()}
    return Manifest(task="vision", splits=splits, refused=refused, facts=facts.model_dump())


def load_split(prepared: Path, split: str) -> Batch:
    """Return image, uint8 (N, C, H, W), and label, int64 (N,), on memory-mapped files.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    return {
        "image": arrays.load(prepared / f"{split}.images.npy"),
        "label": arrays.load(prepared / f"{split}.labels.npy"),
    }


def _form(raw: Path, survey: folders.Survey, options: VisionPrepareParams) -> tuple[int, int]:
    """Return channels and size; where they are auto, from training files spread evenly over all classes."""
    if options.channels != "auto" and options.size != "auto":
        return options.channels, options.size
    greys, sides = [], []
    files = chain.from_iterable(folders.files(raw, "train", name) for name in survey.classes)
    for file in islice(files, 0, None, -(-sum(survey.counts["train"].values()) // PEEKED)):
        with suppress(Unusable, OSError):  # the refusals will tell
            grey, side = peek(raw / file, options.max_megapixels)
            greys.append(grey)
            sides.append(side)
    side = statistics.median_low(sides or [SMALLEST])
    size = min(max(side, SMALLEST), LARGEST) if options.size == "auto" else options.size
    if options.channels == "auto":
        return 1 if all(greys) else 3, size
    return options.channels, size


def _write(
    raw: Path, out: Path, survey: folders.Survey, shape: tuple[int, int, int], options: VisionPrepareParams
) -> tuple[dict[str, intake.Part], list[Refusal]]:
    """Write all splits; return them by name, and the refusals sorted by file."""
    parts: dict[str, intake.Part] = {}
    spent: dict[str, int] = {}  # of each class of train, the files that went to val
    read = partial(_read, raw, shape, options.max_megapixels)
    with intake.filling("vision", "image", raw, out, read, survey.total) as filler:
        for split in intake.ORDER:
            with intake.writing(out, split, {"images": (np.uint8, shape)}) as part:
                for label, name in enumerate(survey.classes):
                    files, wanted = _candidates(raw, split, name, options, spent)
                    spent[name] = filler.fill(part, label, files, wanted)
            parts[split] = part
    for file in survey.strays:
        filler.refuse(file, "outside the class folders")
    return parts, filler.refused(options.max_refused)


def _read(raw: Path, shape: tuple[int, int, int], max_megapixels: float, file: str) -> intake.Sample:
    """Return a file's image, (C, H, W) = `shape`; its sums (2, C) are those of the pixels and of their squares."""
    channels, size, _ = shape
    pixels = decode(intake.contents(raw, file, "an image"), size, channels, max_megapixels)
    wide = pixels.astype(np.uint32)
    sums = np.stack([wide.sum((1, 2)), (wide * wide).sum((1, 2))])
    return intake.Sample({"images": pixels}, intake.digest(pixels), sums)


def _candidates(
    raw: Path, split: str, name: str, options: VisionPrepareParams, spent: dict[str, int]
) -> tuple[list[str], int]:
    """Return the files that a class has for a split, and how many of them the split wants."""
    if split == "test" or (raw / "val").is_dir():
        files = folders.files(raw, split, name)
        return files, len(files)
    files = intake.shuffled(folders.files(raw, "train", name), options.seed)
    if split == "val":
        return files, max(1, round(options.val_share * len(files)))
    rest = sorted(files[spent[name] :])
    return rest, len(rest)


def _facts(parts: dict[str, intake.Part], classes: list[str], channels: int, size: int) -> VisionFacts:
    train = parts["train"]
    pixels = train.rows * size * size
    assert train.sums is not None, "a training part without images"
    mean, std = [], []
    for total, squares in train.sums.T.tolist():  # Python's integers: exact, however many there are
        mean.append(total / pixels / 255)
        variance = (pixels * squares - total * total) / pixels**2
        std.append(max(variance**0.5, 1.0) / 255)
    counts = intake.class_counts(parts, classes)
    return VisionFacts(classes=classes, channels=channels, size=size, mean=mean, std=std, counts=counts)
