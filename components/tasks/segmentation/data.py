"""The embedded data set."""

from pathlib import Path

from components.images.scenes import write_scenes


def scenes(folder: Path) -> None:
    """Write the composed scenes of `components.images.scenes`: 3,000, 400 and 600 images, each with a mask."""
    write_scenes(folder)
