"""Folders of image files -> uint8 arrays, and the two classifiers that measure generated images."""

from pathlib import Path

import torch

from components.contracts import Manifest
from components.datasets import arrays
from components.datasets.splits import Columns
from components.images import class_folders
from components.images.class_folders import Facts
from components.tasks.image_generation import classifiers
from components.tasks.image_generation.params import FlowParams


def prepare(raw: Path, out: Path, params: FlowParams) -> Manifest:
    """Prepare images in a folder for each class, and train the classifiers on those of the training split.

    Raises:
        PedigreeError: as `class_folders.prepare`.
    """
    manifest = class_folders.prepare("image_generation", raw, out, params.prepare)
    facts = Facts.model_validate(manifest.facts)
    classifiers.train(out, load_split(out, "train"), facts, params.prepare.classifier_updates)
    return manifest


def load_split(prepared: Path, split: str) -> Columns:
    """Return image, uint8 (N, C, H, W), and label, int64 (N,), on memory-mapped files; and number, 0 to N - 1.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    label = arrays.load(prepared / f"{split}.labels.npy")
    images = arrays.load(prepared / f"{split}.images.npy")
    return Columns({"image": images, "label": label, "number": torch.arange(len(label))})
