"""Folders of image files -> uint8 arrays, labels and file names, and the facts that the network needs."""

from pathlib import Path

from components.contracts import Manifest
from components.datasets import arrays
from components.datasets.splits import Columns
from components.images import class_folders
from components.tasks.image_classification.params import VisionParams


class VisionFacts(class_folders.Facts):
    """Facts about the images that the network and its callers need."""


def prepare(raw: Path, out: Path, params: VisionParams) -> Manifest:
    """Prepare images in a folder for each class; raises and writes as `class_folders.prepare` does."""
    return class_folders.prepare("image_classification", raw, out, params.prepare)


def load_split(prepared: Path, split: str) -> Columns:
    """Return image, uint8 (N, C, H, W), and label, int64 (N,), on memory-mapped files.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    return Columns(
        {
            "image": arrays.load(prepared / f"{split}.images.npy"),
            "label": arrays.load(prepared / f"{split}.labels.npy"),
        }
    )
