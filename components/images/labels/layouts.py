"""Raw images in any layout that is read: which one it is, its splits, and the bytes of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from components.datasets import ingest, raw_files
from components.errors import PedigreeError
from components.images.decoding import decode
from components.images.labels import csv_manifest, folders, medmnist
from components.images.labels.image_lists import Listing
from components.params import FilesPrepareParams

Format = Literal["folders", "csv", "npz"]


@dataclass(frozen=True)
class Source:
    """A raw folder of images; none has been opened."""

    format: Format
    survey: folders.Survey | Listing
    contents: Callable[[str], bytes]
    """Returns the bytes of an image by its name in the survey, in a format that `decode` reads; raises Unusable."""
    peek: Callable[[str, float], tuple[bool, int]]
    """Does what `decode.peek` does, by the image's name."""


def find(raw: Path, chosen: Format | Literal["auto"], options: FilesPrepareParams) -> Source:
    """Detect the layout unless it is chosen, and survey the folder without opening images.

    Raises:
        PedigreeError: there are several, or none, or the survey of the layout fails.
    """
    found = _detected(raw) if chosen == "auto" else chosen
    if found == "npz":
        name = _only(raw, "npz", medmnist.archives(raw))
        return Source(
            found, medmnist.survey(raw, name, options), reader(raw, found), partial(_peek_array, raw, name)
        )
    survey: folders.Survey | Listing
    if found == "csv":
        survey = csv_manifest.survey(raw, _only(raw, "csv", csv_manifest.manifests(raw)), options)
    else:
        survey = folders.survey(raw, options)
    return in_files(raw, survey, found)


def in_files(raw: Path, survey: folders.Survey | Listing, layout: Format = "folders") -> Source:
    """Return the source of images each of which is a file."""
    return Source(layout, survey, reader(raw, layout), partial(_peek_file, raw))


def reader(raw: Path, layout: Format) -> Callable[[str], bytes]:
    """Return `Source.contents` of a raw folder in a known layout."""
    if layout == "npz":
        return partial(medmnist.contents, raw, _only(raw, "npz", medmnist.archives(raw)))
    return partial(_file, raw)


def _detected(raw: Path) -> Format:
    """Return the layout: a CSV manifest, an npz file that no folder is beside, or folders of classes."""
    manifests, archives = csv_manifest.manifests(raw), medmnist.archives(raw)
    if manifests and archives:
        raise PedigreeError(
            f"{raw} has two layouts: the manifest {manifests[0]} and the arrays {archives[0]}: set prepare.format "
            "to csv or npz"
        )
    if manifests:
        return "csv"
    has_folders = any(is_folder for _, is_folder in raw_files.visible(raw))
    return "npz" if archives and not has_folders else "folders"


def _only(raw: Path, kind: str, names: list[str]) -> str:
    if not names:
        what = "no CSV file with the columns path and label" if kind == "csv" else "no npz file"
        raise PedigreeError(f"{raw} has {what}: put one there, or set prepare.format to auto")
    if len(names) > 1:
        raise PedigreeError(f"{raw} has several {kind} files: {raw_files.listed(names)}: leave one of them there")
    return names[0]


def _file(raw: Path, file: str) -> bytes:
    return ingest.contents(raw, file, "an image")


def _peek_file(raw: Path, file: str, max_megapixels: float) -> tuple[bool, int]:
    return decode.peek(raw / file, max_megapixels)


def _peek_array(raw: Path, name: str, image: str, max_megapixels: float) -> tuple[bool, int]:
    return medmnist.peek(raw, name, image)
