"""Raw images -> uint8 arrays, labels and names, and the facts that the network needs."""

import hashlib
import logging
import statistics
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from components.classification.ranked import Problem
from components.contracts import Manifest, Part, RejectedFile
from components.datasets import arrays, groups, ingest, raw_files
from components.datasets.ingest import Unusable
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.images import dicom, folders, sources
from components.images.decode import decode
from components.images.lists import COMPOSED, Listing
from components.images.sources import Format, Source
from components.tasks.image_classification.params import VisionParams, VisionPrepareParams

log = logging.getLogger("pedigree.prepare")

PEEKED = 1000
"""Maximum number of training files that are inspected for `auto`."""
SMALLEST, LARGEST = 28, 224
"""Limits of the side in pixels that `size: auto` selects."""


class VisionFacts(BaseModel):
    """Facts about the images that the network and its callers need."""

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
    several: bool = Field(default=False, description="Whether an image can have several labels, or none")
    positive: str = Field(default="", description="The positive one of two classes, if it is named")
    score: Literal["accuracy", "auc"] = Field(default="accuracy", description="By which versions are compared")
    patients: bool = Field(default=False, description="Whether the patient of each image is known")
    dicom: bool = Field(default=False, description="Whether there are DICOM files among the test images")

    @property
    def ranked(self) -> bool:
        """Whether probabilities are evaluated, and not only answers."""
        return self.several or bool(self.positive) or self.score == "auc"

    @property
    def problem(self) -> Problem:
        """What is to be told apart."""
        return Problem(self.classes, self.positive, self.several)


def prepare(raw: Path, out: Path, params: VisionParams) -> Manifest:
    """Write each split's images (N, C, H, W), labels (N,) and names into the empty folder `out`.

    Where an image can have several labels, these are in targets (N, classes) instead, as 0 and 1. Where patients
    are known, patients (N,) has their numbers.

    Without a folder of validation, val is a share of each class of train; likewise test, before val. Memory holds a
    few images, the file names of one class, or of all if test is drawn or there is a list of them, and about 150
    bytes for each test and val file.

    Raises:
        PedigreeError: the raw folder is inconsistent, too many files cannot be used, or a parameter does not fit
            the classes.
    """
    source = find(raw, params.prepare)
    survey = source.survey
    _check_problem(raw, source, params.prepare)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings name no file; problems that matter become rejections
        channels, size = _form(source, params.prepare)
        parts, rejected = _write(raw, out, source, (channels, size, size), params.prepare)
    given = {split: survey.counts.get(split, survey.counts["train"]) for split in parts}
    if not survey.several:
        ingest.check_classes(raw, parts, survey.classes, given, "image")
    splits = {name: part.described() for name, part in parts.items()}
    counts = ingest.class_counts(parts, survey.classes)
    if isinstance(survey, Listing):
        counts = _write_lists(raw, out, survey, splits, counts)
    facts = _facts(parts["train"], channels, size, params.prepare).model_copy(
        update={
            "classes": survey.classes,
            "counts": counts,
            "group": survey.group,
            "format": source.format,
            "several": survey.several,
            "patients": bool(survey.patients),
            "dicom": _has_dicom(out, source),
        }
    )
    return Manifest(
        task="image_classification",
        splits=splits,
        rejected=rejected,
        ignored=sorted([*raw_files.about(raw), *survey.ignored]),
        facts=facts.model_dump(),
        drawn=ingest.drawn(survey.drawn, sum(survey.counts["test"].values()), parts["test"]),
        note="; ".join(filter(None, (_composed(raw), survey.note, *_shared(raw, out, survey)))),
    )


def find(raw: Path, options: VisionPrepareParams) -> Source:
    """Detect the layout of the raw folder and survey it without opening images."""
    return sources.find(raw, options.format, options)


def _check_problem(raw: Path, source: Source, options: VisionPrepareParams) -> None:
    """Check that the positive class and the score fit the classes."""
    classes, several, positive = source.survey.classes, source.survey.several, options.positive
    if positive and (several or len(classes) != 2):
        what = "an image can have several labels" if several else f"there are {len(classes):,} classes"
        raise PedigreeError(f"{raw}: prepare.positive is for two classes, and {what}: set it to ''")
    if positive and positive not in classes:
        raise PedigreeError(
            f"{raw}: prepare.positive {positive!r} is no class: set it to {' or '.join(map(repr, classes))}"
        )
    if options.score == "auc" and len(classes) == 2 and not several and not positive:
        raise PedigreeError(
            f"{raw}: of two classes, AUC needs the one whose probability decides: set prepare.positive to "
            f"{' or '.join(map(repr, classes))}"
        )


def _composed(raw: Path) -> str:
    return "composed images" if (raw / COMPOSED).is_file() else ""


def _has_dicom(out: Path, source: Source) -> bool:
    """Return whether a test image is a DICOM file, which the served model then needs a package for."""
    if find_spec(dicom.EXTRA) is None:  # such files were rejected
        return False
    return any(dicom.is_dicom(source.contents(file)) for file in ingest.file_names(out, "test"))


def _write_lists(
    raw: Path, out: Path, listing: Listing, splits: dict[str, Part], counts: dict[str, dict[str, int]]
) -> dict[str, dict[str, int]]:
    """Write targets and patients, add the targets to the hashes of the splits, and return the images by class.

    Raises:
        PedigreeError: an image can have several labels, and all training images have one of them, or none has.
    """
    patients = listing.patients
    for split, part in splits.items():
        files = ingest.file_names(out, split)
        if patients:
            with arrays.Writer(out / f"{split}.patients.npy", np.int64) as writer:
                writer.append(np.array([patients[file] for file in files], np.int64))
        if not listing.several:
            continue
        labels = listing.labels_of(split)
        with arrays.Writer(out / f"{split}.targets.npy", np.uint8, (len(listing.classes),)) as writer:
            rows = [[name in labels[file] for name in listing.classes] for file in files]
            writer.append(np.array(rows, np.uint8))
        joint = hashlib.sha256(f"{part.sha256} {writer.sha256}".encode()).hexdigest()
        splits[split] = part.model_copy(update={"sha256": joint})
        counts[split] = dict(zip(listing.classes, np.sum(rows, axis=0).tolist(), strict=True))
    total = splits["train"].samples
    same = [name for name, count in counts["train"].items() if count in (0, total)] if listing.several else []
    if same:
        raise PedigreeError(
            f"{raw}: all training images, or none, have the label {raw_files.listed(same)}: add others, or remove "
            "the label"
        )
    return counts


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


def load_split(prepared: Path, split: str) -> Columns:
    """Return image, uint8 (N, C, H, W), and label on memory-mapped files.

    Labels are int64 (N,), or uint8 (N, classes) of 0 and 1 where an image can have several.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    targets = prepared / f"{split}.targets.npy"
    return Columns(
        {
            "image": arrays.load(prepared / f"{split}.images.npy"),
            "label": arrays.load(targets if targets.exists() else prepared / f"{split}.labels.npy"),
        }
    )


def _form(source: Source, options: VisionPrepareParams) -> tuple[int, int]:
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
    raw: Path, out: Path, source: Source, shape: tuple[int, int, int], options: VisionPrepareParams
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
                    files, wanted = _candidates(survey, split, name, options, used)
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
    survey: folders.Survey | Listing, split: str, name: str, options: VisionPrepareParams, used: dict[str, int]
) -> tuple[list[str], int]:
    """Return the candidate files of a class for a split, and how many of them the split needs."""
    if split == "test" or "val" in survey.counts:
        files = survey.files(split, name)
        return files, len(files)
    files = ingest.shuffled(survey.files("train", name), options.seed)
    if split == "val":
        return files, max(1, round(options.val_share * len(files)))
    rest = sorted(files[used[name] :])
    return rest, len(rest)


def _facts(train: ingest.Part, channels: int, size: int, options: VisionPrepareParams) -> VisionFacts:
    """Return what the pixels of the training images and the parameters say."""
    pixels = train.rows * size * size
    assert train.sums is not None, "a training part without images"
    mean, std = [], []
    for total, squares in train.sums.T.tolist():  # Python integers, so that sums are exact
        mean.append(total / pixels / 255)
        variance = (pixels * squares - total * total) / pixels**2
        std.append(max(variance**0.5, 1.0) / 255)
    return VisionFacts(
        classes=[],
        channels=channels,
        size=size,
        mean=mean,
        std=std,
        counts={},
        positive=options.positive,
        score=options.score,
    )
