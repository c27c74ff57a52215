"""The files of a folder with annotated images: which are images, and in which split they are."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from components.datasets.ingest import Unusable
from components.datasets.raw_files import listed, split_of, visible
from components.display import printable_name

IMAGES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".avif", ".jfif")
)
"""Suffixes of image files."""
PREFERRED = ("jpegimages", "images", "image", "imgs", "img")
"""Names, in small letters, of folders that hold the images where other folders hold masks of the same names."""


@dataclass(frozen=True)
class Files:
    """The visible files of a raw folder, as sorted paths below it."""

    raw: Path
    paths: Sequence[str]

    def of(self, *suffixes: str) -> list[str]:
        """Return the files with one of these suffixes, which are in small letters."""
        return [path for path in self.paths if PurePosixPath(path).suffix.lower() in suffixes]

    @cached_property
    def images(self) -> Sequence[str]:
        """The image files."""
        return self.of(*IMAGES)

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[str]]:
        return _grouped(self.images, lambda path: path.name)

    @cached_property
    def _by_stem(self) -> Mapping[str, Sequence[str]]:
        return _grouped(self.images, lambda path: path.stem)

    def named(self, name: str, beside: str) -> str:
        """Return the image that an annotation file `beside` names, by a path that may begin anywhere.

        Raises:
            Unusable: there is none, or there are several.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        found = self._by_name.get(parts[-1], ()) if parts else ()
        for count in range(len(parts), 1, -1):
            if exact := [path for path in found if PurePosixPath(path).parts[-count:] == parts[-count:]]:
                found = exact
                break
        return self._only(found, beside, f"no image is named {printable_name(name)}")

    def with_stem(self, stem: str, beside: str) -> str:
        """Return the image with the name of the annotation file `beside` but for the suffix; raises likewise."""
        return self._only(self._by_stem.get(stem, ()), beside, f"no image is named {stem}")

    def _only(self, found: Sequence[str], beside: str, missing: str) -> str:
        """Return the nearest image: in the file's own folder, in that of its split, or in one of images.

        An image in the folder of another split is a different one, although it has the same name.
        """
        folder, split = _folder(beside), split_in(beside)
        found = [path for path in found if split is None or split_in(f"{_folder(path)}/x") in (None, split)]
        if not found:
            raise Unusable(missing)
        found = [path for path in found if _folder(path) == folder] or found
        found = [path for path in found if split is not None and split_in(path) == split] or found
        found = [path for path in found if _in_images(path)] or found
        if len(found) > 1:
            raise Unusable(f"several images have its name: {listed(found)}")
        return found[0]


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _in_images(path: str) -> bool:
    return any(folder.casefold() in PREFERRED for folder in PurePosixPath(path).parts[:-1])


def _grouped(paths: Sequence[str], key: Callable[[PurePosixPath], str]) -> Mapping[str, Sequence[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[key(PurePosixPath(path))].append(path)
    return groups


def below(raw: Path) -> Files:
    """List the visible files of a raw folder."""
    return Files(raw, sorted(_below(raw, "")))


def _below(folder: Path, path: str) -> Iterator[str]:
    for name, is_folder in visible(folder):
        if is_folder:
            yield from _below(folder / name, f"{path}{name}/")
        else:
            yield f"{path}{name}"


def split_in(path: str) -> str | None:
    """Return the split that a path names: a folder such as train or val2017, or else a word of the file's name."""
    *folders, name = PurePosixPath(path).parts
    words = re.split(r"[^A-Za-z0-9]+", PurePosixPath(name).stem)
    found = [split for part in (*reversed(folders), *words) if (split := split_of(part.rstrip("0123456789")))]
    return found[0] if found else None
