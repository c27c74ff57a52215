"""Raw images -> uint8 arrays, labels and names, and the facts that the network needs."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from components.classification.probabilities import Problem
from components.contracts import Manifest, Part
from components.datasets import arrays, ingest, raw_files
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.images.decoding import dicom
from components.images.labels import labelled, layouts
from components.images.labels.image_lists import Listing
from components.images.labels.labelled import Facts
from components.images.labels.layouts import Source
from components.tasks.image_classification.params import VisionParams, VisionPrepareParams


class VisionFacts(Facts):
    """Facts about the images that the network and its callers need."""

    # Older manifests have none of these.
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
        """The classes to distinguish."""
        return Problem(self.classes, self.positive, self.several)


def prepare(raw: Path, out: Path, params: VisionParams) -> Manifest:
    """Write each split's images (N, C, H, W), labels (N,) and names into the empty folder `out`.

    Where an image can have several labels, these are in targets (N, classes) instead, as 0 and 1. Where patients
    are known, patients (N,) has their numbers. How splits are drawn: see `labelled.write`.

    Raises:
        PedigreeError: the raw folder is inconsistent, too many files cannot be used, or a parameter does not fit
            the classes.
    """
    source = find(raw, params.prepare)
    survey = source.survey
    _check_problem(raw, source, params.prepare)
    written = labelled.write(raw, out, source, params.prepare, params.prepare.per_class)
    splits = {name: part.described() for name, part in written.parts.items()}
    general = labelled.facts(source, written)
    if isinstance(survey, Listing):
        counts = _write_lists(raw, out, survey, splits, general.counts)
        general = general.model_copy(update={"counts": counts})
    facts = VisionFacts(
        **general.model_dump(),
        several=survey.several,
        positive=params.prepare.positive,
        score=params.prepare.score,
        patients=bool(survey.patients),
        dicom=_has_dicom(out, source),
    )
    return labelled.manifest("image_classification", raw, out, source, written, facts, splits)


def find(raw: Path, options: VisionPrepareParams) -> Source:
    """Detect the layout of the raw folder and survey it without opening images."""
    return layouts.find(raw, options.format, options)


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
