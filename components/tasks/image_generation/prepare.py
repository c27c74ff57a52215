"""Folders of image files -> uint8 arrays, and the two classifiers that measure generated images."""

from pathlib import Path

import torch

from components.contracts import Manifest
from components.datasets import arrays
from components.datasets.splits import Columns
from components.images.labels import labelled, layouts
from components.tasks.image_generation import classifiers
from components.tasks.image_generation.params import FlowParams


def prepare(raw: Path, out: Path, params: FlowParams) -> Manifest:
    """Prepare images in a folder for each class, and train the classifiers on those of the training split.

    Raises:
        PedigreeError: as `layouts.find` and `labelled.write`.
    """
    source = layouts.find(raw, "folders", params.prepare)
    written = labelled.write(raw, out, source, params.prepare)
    facts = labelled.facts(source, written)
    splits = {name: part.described() for name, part in written.parts.items()}
    classifiers.train(out, load_split(out, "train"), facts, params.prepare.classifier_updates)
    return labelled.manifest("image_generation", raw, out, source, written, facts, splits)


def load_split(prepared: Path, split: str) -> Columns:
    """Return image, uint8 (N, C, H, W), and label, int64 (N,), on memory-mapped files; and number, 0 to N - 1.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    label = arrays.load(prepared / f"{split}.labels.npy")
    images = arrays.load(prepared / f"{split}.images.npy")
    return Columns({"image": images, "label": label, "number": torch.arange(len(label))})
