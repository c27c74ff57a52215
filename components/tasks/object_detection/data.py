"""The embedded data set of object detection."""

from pathlib import Path

from components.images.embedded.scenes import write_scenes


def scenes(folder: Path) -> None:
    """Write 4,000 composed scenes in COCO's format."""
    write_scenes(folder)
