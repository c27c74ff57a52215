"""Raw folders of images, split by class -> uint8 arrays, and the episodes of validation."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from pydantic import Field

from components.contracts import Manifest, Part
from components.datasets import arrays
from components.images.labels import class_splits, labelled, layouts
from components.images.labels.folders import Survey
from components.images.labels.labelled import Facts
from components.tasks.few_shot.episodes import Pictures, fixed
from components.tasks.few_shot.params import FewShotParams, FewShotPrepareParams

EPISODES, WAYS, SHOTS, QUERIES = 50, 20, 1, 5
"""Of validation; with fewer classes or images than that, all there are."""
NO_TEST = "there is no folder test with other images of these classes: accuracy is that of each image by the others"


class FewShotFacts(Facts):
    """Facts about the images that the network and its callers need."""

    known: int = Field(description="The first so many classes have a prototype: they are served")
    taught: bool = Field(description="Whether the test images are of the known classes, and not of others")


def prepare(raw: Path, out: Path, params: FewShotParams) -> Manifest:
    """Write each split's images (N, C, H, W), labels (N,) and names into the empty folder `out`.

    The splits have different classes. With `prepare.taught`, train has the support, validation is on its images,
    and so is the test if there is no folder of it.

    Raises:
        PedigreeError: the raw folder is inconsistent, too many files cannot be used, or a class has too few left.
    """
    options = params.prepare
    survey = find(raw, options)
    source = layouts.in_files(raw, survey)
    written = labelled.write(raw, out, source, options)
    splits = {name: part.described() for name, part in written.parts.items()}
    for name in [name for name, part in splits.items() if not part.samples]:
        splits[name] = _copied(out, splits["train"], name)
    splits["val"] = _write_episodes(out, splits["val"], options.seed)
    known = len(survey.classes) if options.taught else len(survey.folders["val"])
    facts = FewShotFacts(**labelled.facts(source, written).model_dump(), known=known, taught=options.taught)
    manifest = labelled.manifest("few_shot", raw, out, source, written, facts, splits)
    return manifest.model_copy(update={"untested": NO_TEST}) if not written.parts["test"].rows else manifest


def find(raw: Path, options: FewShotPrepareParams) -> Survey:
    """Survey the raw folder without opening images."""
    return class_splits.of_support(raw) if options.taught else class_splits.survey(raw, options)


def _copied(out: Path, train: Part, split: str) -> Part:
    """Make the images of train those of a split that has none, too."""
    for column in ("images.npy", "labels.npy", "files.txt"):
        shutil.copyfile(out / f"train.{column}", out / f"{split}.{column}")
    return train


def _write_episodes(out: Path, part: Part, seed: int) -> Part:
    """Write the episodes of validation, and return its part of the manifest: samples are episodes."""
    label = load_split(out, "val", images=True).label
    counts = label.bincount()
    counts = counts[counts > 0]
    images = min(int(counts.min()), SHOTS + QUERIES)
    places = fixed(label, EPISODES, min(len(counts), WAYS), images, seed)
    with arrays.Writer(out / "val.episodes.npy", np.int64, places.shape[1:]) as writer:
        writer.append(places)
    joint = hashlib.sha256(f"{part.sha256} {writer.sha256}".encode()).hexdigest()
    return Part(samples=len(places), sha256=joint)


def load_split(prepared: Path, split: str, images: bool = False) -> Pictures:
    """Open a split on memory-mapped files; a sample of val is an episode, unless `images` asks for its images.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    pictures = Pictures(*(arrays.load(prepared / f"{split}.{column}.npy") for column in ("images", "labels")))
    if split != "val" or images:
        return pictures
    return Pictures(pictures.image, pictures.label, arrays.load(prepared / "val.episodes.npy"))
