"""The raw folder: raw/{train,test}/<class>/<file>, and raw/val where there is one."""

from dataclasses import dataclass
from pathlib import Path

from components.errors import PedigreeError
from components.intake import listed, visible

Counts = dict[str, dict[str, int]]
"""Split to class to number of entries."""


@dataclass(frozen=True)
class Survey:
    """What there is, counted and not yet opened."""

    counts: Counts
    """Entries of the class folders; `val` only where there is such a folder."""
    strays: list[str]
    """Files beside the class folders, as paths below the raw folder."""

    @property
    def classes(self) -> list[str]:
        """Sorted; a label is a place in this list."""
        return list(self.counts["train"])

    @property
    def total(self) -> int:
        """Entries of all splits, strays too."""
        return sum(sum(classes.values()) for classes in self.counts.values()) + len(self.strays)


def survey(raw: Path) -> Survey:
    """Look at the folders, and at no file.

    Raises:
        PedigreeError: there is nothing to learn from, or the splits do not have the same classes.
    """
    splits = [split for split in ("train", "val", "test") if (raw / split).is_dir()]
    counts = {split: _count(raw / split) for split in splits}
    if not any(sum(classes.values()) for classes in counts.values()):
        raise PedigreeError(
            f"{raw}: there are no images: run `pedigree data`, or put folders {raw}/{{train,test}}/<class>/"
        )
    for split in ("train", "test"):
        if split not in counts:
            raise PedigreeError(f"{raw / split} does not exist: put a folder with images there for each class")
    for split, classes in counts.items():
        if empty := [f"{raw / split / name}" for name, entries in classes.items() if not entries]:
            raise PedigreeError(f"{listed(empty)}: no images there: put some in, or remove the folder")
    _compare(raw, counts)
    return Survey(counts, [file for split in splits for file in _strays(raw, split)])


def _compare(raw: Path, counts: Counts) -> None:
    train = counts["train"]
    for split, classes in counts.items():
        if unknown := sorted(classes.keys() - train.keys()):
            raise PedigreeError(
                f"{raw / split} has classes that {raw / 'train'} has not: {listed(unknown)}: "
                "add images of them to train, or remove the folders"
            )
    if untested := sorted(train.keys() - counts["test"].keys()):
        raise PedigreeError(
            f"{raw / 'test'} lacks classes that {raw / 'train'} has: {listed(untested)}: move some of their "
            "images there, for without them nobody can tell how well they are recognised"
        )
    if len(train) < 2:
        raise PedigreeError(f"{raw / 'train'} has one class, {listed(list(train))}: put a folder there for another")


def _count(split: Path) -> dict[str, int]:
    classes = sorted(name for name, is_folder in visible(split) if is_folder)
    return {name: sum(1 for _ in visible(split / name)) for name in classes}


def files(raw: Path, split: str, name: str) -> list[str]:
    """Return what lies in a class folder, as paths below `raw`, sorted; nothing if there is no such folder."""
    folder = raw / split / name
    return sorted(f"{split}/{name}/{entry}" for entry, _ in visible(folder)) if folder.is_dir() else []


def _strays(raw: Path, split: str) -> list[str]:
    return [f"{split}/{entry}" for entry, is_folder in visible(raw / split) if not is_folder]
