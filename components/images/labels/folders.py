"""The raw folder of images: raw/{train,test}/<class>/<file>, and optionally raw/val; or raw/<class>/<file>."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from components.datasets import groups
from components.datasets.raw_files import SPLITS, about, by_name, listed, split_of, visible, with_similar
from components.errors import PedigreeError
from components.params import FilesPrepareParams

log = logging.getLogger("pedigree.prepare")

Counts = dict[str, dict[str, int]]
"""Split to class to number of entries."""
Folders = Mapping[str, Mapping[str, Sequence[str]]]
"""Split to class to its folders, as paths below the raw folder: one, or several of pooled splits.

Their names may be the class' name in another spelling of Unicode.
"""
GROUP = r"^(?P<group>.+?)([ _.-]+\(?|(?<=[^\W\d_]))\d+\)?$"
"""The group in an image's name is what comes before its last number: the patient of `p12_003.png`."""


@dataclass(frozen=True)
class Survey:
    """The number of files by split and class; no file has been opened."""

    raw: Path
    folders: Folders
    counts: Counts
    """Entries of each split; `val` only if there is such a folder, or it was drawn by groups."""
    strays: dict[str, str]
    """Files outside the class folders and folders that are no split, as paths below the raw folder; and why."""
    chosen: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The files of splits that were drawn from the folders of train."""
    drawn: str = ""
    """What was drawn for testing; empty if the data set has a test split."""
    group: str = ""
    """Pattern that finds the group in a file's name; empty unless test was drawn by groups."""
    note: str = ""
    """What to say of the draw beside all results; may be empty."""
    several: bool = False
    """An image is in one folder, so it has one label."""
    patients: Mapping[str, int] = field(default_factory=dict)
    """None: file names tell groups."""
    ignored: Sequence[str] = ()
    """None: every entry of a class folder counts."""
    names: Sequence[str] = ()
    """The classes, if not all of them are in train: see `class_splits`."""

    @property
    def strata(self) -> list[str]:
        """What images are divided by: the classes."""
        return self.classes

    @property
    def classes(self) -> list[str]:
        """Class names, sorted unless `names` lists them; a label is an index into this list."""
        return list(self.names or self.counts["train"])

    @property
    def total(self) -> int:
        """Number of entries in all splits, including strays."""
        return sum(sum(classes.values()) for classes in self.counts.values()) + len(self.strays)

    def files(self, split: str, name: str) -> list[str]:
        """Return the sorted entries of a class as paths below `raw`; none if the split has no such class."""
        if split in self.chosen:
            return [file for file in self.files_in("train", name) if file in self.chosen[split]]
        files = self.files_in(split, name)
        if split == "train":
            files = [file for file in files if not any(file in chosen for chosen in self.chosen.values())]
        return files

    def files_in(self, split: str, name: str) -> list[str]:
        """Return the sorted entries of a split's folders of a class, wherever they were drawn to."""
        return _files(self.raw, self.folders[split].get(name, ()))


def survey(raw: Path, options: FilesPrepareParams) -> Survey:
    """Survey the folders without opening files.

    A split's folder may have any of the names in `SPLITS`, in any case. If there is none of test, or `resplit`
    draws anew, test gets a share of each class, and no group that file names tell is on both sides.

    Raises:
        PedigreeError: there are no images to train on, two folders are the same split or class, the classes of the
            splits differ, splits and classes are side by side, or a class has too few files to draw from.
    """
    entries = sorted(name for name, is_folder in visible(raw) if is_folder)
    splits = _splits(raw, entries)
    _check_layout(raw, entries, splits)
    folders = _folders(raw, splits)
    if options.resplit:
        folders = {"train": _pooled(folders)}
    counts = {
        split: {name: len(_files(raw, paths)) for name, paths in classes.items()}
        for split, classes in folders.items()
    }
    if not any(sum(classes.values()) for classes in counts.values()):
        raise PedigreeError(
            f"{raw}: there are no images: run `pedigree data`, or put folders {raw}/<class>/ or "
            f"{raw}/{{train,test}}/<class>/ there"
        )
    if "train" not in counts:
        raise PedigreeError(f"{raw / 'train'} does not exist: put a folder with images there for each class")
    _check_filled(raw, folders)
    _compare(raw, splits, counts)
    strays = _strays(raw, entries, splits)
    if "test" in folders:
        return Survey(raw, folders, counts, strays)
    return _with_drawn(Survey(raw, folders, counts, strays), options)


def groups_of(files: Sequence[str], pattern: str) -> list[str]:
    """Return the group in each file's name, found by this pattern; a file without one is a group of its own."""
    return groups.of_each(files, pattern, "group")


def _splits(raw: Path, entries: list[str]) -> dict[str, str]:
    """Return the folder of each split, in the order of `SPLITS`."""
    found = [(split, name) for name in entries if (split := split_of(name))]
    for split, count in Counter(split for split, _ in found).items():
        if count > 1:
            both = " and ".join(str(raw / name) for other, name in found if other == split)
            raise PedigreeError(f"{both} are each the folder of {split}: put their images into one, or rename one")
    return {split: dict(found)[split] for split in SPLITS if split in dict(found)}


def _check_layout(raw: Path, entries: list[str], splits: Mapping[str, str]) -> None:
    """Check that the folders beside each other are all of splits, or all of classes."""
    others = [name for name in entries if name not in splits.values()]
    kinds = {name: {is_folder for _, is_folder in visible(raw / name)} for name in others}
    classes = [name for name in others if False in kinds[name]]
    if splits and classes and not {"train", "test"} <= splits.keys():
        raise PedigreeError(
            f"{raw}: beside folders of splits ({listed([*splits.values()])}) are folders that hold images, as "
            f"those of classes do ({listed(classes)}): move them into a split's folder, or put all classes beside "
            "each other, none of which may have the name of a split"
        )
    nested = [name for name in others if kinds[name] == {True}]
    if nested and not splits:
        raise PedigreeError(
            f"{raw}: {listed(nested)} has only folders and no images: move these folders up into {raw}"
        )


def _folders(raw: Path, splits: Mapping[str, str]) -> Folders:
    """Return the class folders of each split; without splits, those in the raw folder are of train."""
    return {
        split: {
            name: [PurePosixPath(parent, folder).as_posix()]
            for name, folder in by_name(
                raw / parent, (name for name, is_folder in visible(raw / parent) if is_folder)
            ).items()
        }
        for split, parent in (splits or {"train": ""}).items()
    }


def _pooled(folders: Folders) -> Mapping[str, Sequence[str]]:
    """Return the folders of each class in all splits."""
    names = sorted({name for classes in folders.values() for name in classes})
    return {name: [path for classes in folders.values() for path in classes.get(name, ())] for name in names}


def _files(raw: Path, folders: Sequence[str]) -> list[str]:
    return sorted(f"{folder}/{entry}" for folder in folders for entry, _ in visible(raw / folder))


def _check_filled(raw: Path, folders: Folders) -> None:
    paths = [path for classes in folders.values() for each in classes.values() for path in each]
    if empty := [f"{raw / path}" for path in paths if not any(True for _ in visible(raw / path))]:
        raise PedigreeError(f"{listed(empty)}: no images there: put some in, or remove the folder")


def _compare(raw: Path, splits: Mapping[str, str], counts: Counts) -> None:
    train, train_folder = counts["train"], raw / splits.get("train", "")
    for split, classes in counts.items():
        if unknown := sorted(classes.keys() - train.keys()):
            raise PedigreeError(
                f"{raw / splits[split]} has classes that {train_folder} lacks: "
                f"{with_similar(unknown, train)}: add images of them to train, or remove the folders"
            )
    if untested := sorted(train.keys() - counts.get("test", train).keys()):
        raise PedigreeError(
            f"{raw / splits['test']} lacks classes that {train_folder} has: "
            f"{with_similar(untested, counts['test'])}: move some of their images there, "
            "as classes without test images cannot be evaluated"
        )
    if len(train) < 2:
        raise PedigreeError(f"{train_folder} has only the class {listed(list(train))}: add a folder for another")


def _strays(raw: Path, entries: list[str], splits: Mapping[str, str]) -> dict[str, str]:
    loose = sorted({name for name, is_folder in visible(raw) if not is_folder} - {*about(raw)})
    unread = [name for name in entries if name not in splits.values()] if splits else []
    outside = [
        PurePosixPath(parent, entry).as_posix()
        for parent in splits.values()
        for entry, is_folder in visible(raw / parent)
        if not is_folder
    ]
    return dict.fromkeys(unread, "a folder that is no split, so that nothing in it is read") | dict.fromkeys(
        [*loose, *outside], "outside the class folders"
    )


def _with_drawn(found: Survey, options: FilesPrepareParams) -> Survey:
    """Return a survey without a folder of test, with files of train drawn for it.

    If file names tell groups, val is drawn by them, too, unless it has a folder or its groups cannot be divided.
    """
    raw, pool = found.raw, {name: found.files_in("train", name) for name in found.classes}
    parts = ["train", "val", "test"] if "val" not in found.counts else ["train", "test"]
    if few := [f"{name} ({len(files)})" for name, files in pool.items() if len(files) < len(parts)]:
        raise PedigreeError(
            f"{raw}: too few images to draw {' and '.join(parts[1:])} from, and leave some to train on: "
            f"{listed(few)}: add images, or remove the class"
        )
    images = [file for files in pool.values() for file in files]
    group_of = groups.found(images, GROUP, "group")
    several = len(set(group_of.values())) > 1
    keep, draw, group, note = len(parts) - 1, (options.seed, options.resplit), "", ""
    if several and (test := groups.draw(pool, group_of, options.test_share, keep, *draw)):
        _report_groups(raw, images, group_of)
        chosen, group = {"test": test}, GROUP
        rest = {name: [file for file in files if file not in test] for name, files in pool.items()}
        if keep > 1 and (val := groups.draw(rest, group_of, options.val_share, 1, *draw)):
            chosen["val"] = val
        some, every = len({group_of[file] for file in test if file in group_of}), len(set(group_of.values()))
        how = f"by {some:,} of {every:,} groups that file names tell"
    else:
        if several:
            note = "groups that file names tell are too uneven to draw whole: a group may be in two splits"
            example = next(iter(group_of.values()))
            log.warning(
                f"{raw.name}: {note}: if images of a group, such as '{example}', are alike, put those for testing "
                "into test/<class>/"
            )
        test = groups.draw_each(pool, options.test_share, keep, *draw)
        chosen, how = {"test": test}, "the same share of each class"
    counts = {
        split: {name: sum(file in files for file in pool[name]) for name in pool} for split, files in chosen.items()
    }
    left = {name: len(files) - sum(each[name] for each in counts.values()) for name, files in pool.items()}
    return replace(
        found,
        counts={
            "train": left,
            **{split: each for split, each in found.counts.items() if split != "train"},
            **counts,
        },
        chosen=chosen,
        drawn=f"{len(test):,} of {len(images):,} images, {how}",
        group=group,
        note=note,
    )


def _report_groups(raw: Path, images: Sequence[str], group_of: Mapping[str, str]) -> None:
    """Log what is taken for groups, and warn if one seems to be several."""
    log.info(f"{raw}: {groups.summary(images, group_of, 'group', 'image')}")
    if doubt := groups.doubt(group_of, "group"):
        log.warning(
            f"{raw}: {doubt}: one source of images may be several groups, and in two splits: rename the files, or "
            f"put the images for testing into {raw}/test/<class>/"
        )
