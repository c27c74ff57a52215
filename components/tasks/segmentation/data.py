"""The embedded data set."""

from pathlib import Path

from components.images.embedded.scenes import write_scenes


def scenes(folder: Path) -> None:
    """Write the scenes of `components.images.embedded.scenes`: 3,000, 400 and 600 images, each with a mask."""
    write_scenes(folder)
