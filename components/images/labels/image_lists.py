"""Images whose labels, patients and splits a list gives: divided into splits, no patient in two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from components.datasets import groups
from components.datasets.raw_files import SPLITS, listed, with_similar
from components.errors import PedigreeError
from components.params import FilesPrepareParams

ANY = ""
"""In place of a class where an image can have several: such images are divided as one."""


class Entry(NamedTuple):
    """One image of a list."""

    file: str
    """Its unique name: a path below the raw folder, or a position in an array."""
    labels: tuple[str, ...]
    """One, or any number in a list whose images can have several."""
    patient: str
    """Empty if unknown."""
    split: str
    """One of `SPLITS`, or empty if the list gives none."""
    where: str
    """Where in the raw folder the list names it, such as `manifest.csv:12`."""


@dataclass(frozen=True)
class Listing:
    """Images by split and class; none has been opened. The attributes are those of `folders.Survey`."""

    raw: Path
    parts: Mapping[str, Sequence[Entry]]
    """The images of train, val and test."""
    classes: list[str]
    """Those of the training images; a label is an index into this list."""
    several: bool
    """Whether an image can have several labels."""
    strays: dict[str, str]
    """What cannot be used, by name, and why."""
    ignored: list[str]
    """Files that the list does not name."""
    drawn: str
    """What was drawn for testing; empty if the list has a test split."""
    group: str = ""
    note: str = ""

    @property
    def strata(self) -> list[str]:
        """What images are divided by: the classes, or `ANY` alone if they can have several."""
        return [ANY] if self.several else self.classes

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split and class, without classes that a split lacks; all as `ANY` if they can have several."""
        found: dict[str, dict[str, int]] = {}
        for split, entries in self.parts.items():
            own = found.setdefault(split, {})
            for entry in entries:
                name = self._name(entry)
                own[name] = own.get(name, 0) + 1
        return found

    @property
    def total(self) -> int:
        """Number of images, including those that cannot be used."""
        return sum(map(len, self.parts.values())) + len(self.strays)

    def files(self, split: str, name: str) -> list[str]:
        """Return the images of a class in a split, in the order of their names."""
        return sorted(entry.file for entry in self.parts[split] if self._name(entry) == name)

    def labels_of(self, split: str) -> dict[str, tuple[str, ...]]:
        """Return the labels of a split's images by name."""
        return {entry.file: entry.labels for entry in self.parts[split]}

    @property
    def patients(self) -> dict[str, int]:
        """The number of each image's patient, from 0; empty if the list gives no patients.

        Numbers take the place of names, which are not stored. An image without a patient has a number of its own.
        """
        entries = [entry for part in self.parts.values() for entry in part]
        if not any(entry.patient for entry in entries):
            return {}
        names = [f"patient {entry.patient}" if entry.patient else f"file {entry.file}" for entry in entries]
        number = {name: index for index, name in enumerate(sorted(set(names)))}
        return {entry.file: number[name] for entry, name in zip(entries, names, strict=True)}

    def _name(self, entry: Entry) -> str:
        return ANY if self.several else entry.labels[0]


def divide(
    raw: Path,
    entries: Sequence[Entry],
    several: bool,
    options: FilesPrepareParams,
    strays: Mapping[str, str],
    ignored: Iterable[str] = (),
    key: Callable[[str], tuple[int, str]] = lambda name: (0, name),
) -> Listing:
    """Divide the images of a list into splits: those that it gives, and those that it lacks drawn from train.

    Whole patients are drawn, or if the list gives none, the same share of each class.

    Args:
        raw: The raw folder.
        entries: The images.
        several: Whether an image can have several labels.
        options: The shares, the seed and the number of the draw.
        strays: What cannot be used, by name, and why.
        ignored: Files that the list does not name.
        key: Order of the classes.

    Raises:
        PedigreeError: there is nothing to train on, a patient is in two splits, only some images have a split, a
            split has a label that train lacks, or a draw is impossible.
    """
    parts: dict[str, list[Entry]] = {}
    for entry in entries:
        parts.setdefault("train" if options.resplit else entry.split, []).append(entry)
    if options.resplit == 0:
        _check_given(raw, parts)
        parts["train"] = parts.pop("", parts.get("train", []))
    classes = sorted({label for entry in parts.get("train", ()) for label in entry.labels}, key=key)
    if len(classes) < (1 if several else 2):
        raise PedigreeError(
            f"{raw}: the training images have {f'only the label {classes[0]}' if classes else 'no labels'}: add "
            "images of another"
        )
    _check_labels(raw, parts, classes, several)
    drawn = _draw(raw, parts, several, options)
    return Listing(
        raw, {split: parts[split] for split in SPLITS}, classes, several, dict(strays), sorted(ignored), drawn
    )


def _check_given(raw: Path, parts: Mapping[str, Sequence[Entry]]) -> None:
    if "" in parts and len(parts) > 1:
        without = listed([entry.where for entry in parts[""]])
        raise PedigreeError(
            f"{raw}: some images have no split: {without}: name a split for each, or for none of them"
        )
    if "" not in parts and "train" not in parts:
        raise PedigreeError(f"{raw}: no image is of the split train: name those to train on")
    first: dict[str, Entry] = {}
    for part in parts.values():
        for entry in part:
            other = first.setdefault(entry.patient, entry) if entry.patient else entry
            if other.split != entry.split:
                raise PedigreeError(
                    f"{raw}: {other.where} and {entry.where} are of one patient, the first in {other.split} and "
                    f"the other in {entry.split}: put all images of a patient into one split"
                )


def _check_labels(raw: Path, parts: Mapping[str, Sequence[Entry]], classes: Sequence[str], several: bool) -> None:
    """Check that no split has a label that train lacks, and that the test split has all, if each image has one."""
    for split, entries in parts.items():
        unknown = {label: entry for entry in entries for label in entry.labels if label not in classes}
        if unknown:
            raise PedigreeError(
                f"{raw}: {split} has labels that train lacks: {with_similar(sorted(unknown), classes)} (such as in "
                f"{next(iter(unknown.values())).where}): add images of them to train, or remove theirs"
            )
    tested = {label for entry in parts.get("test", ()) for label in entry.labels}
    if "test" in parts and not several and (lacking := [name for name in classes if name not in tested]):
        raise PedigreeError(
            f"{raw}: test lacks labels that train has: {listed(lacking)}: move some of their images there, as "
            "classes without test images cannot be evaluated"
        )


def _draw(raw: Path, parts: dict[str, list[Entry]], several: bool, options: FilesPrepareParams) -> str:
    """Draw the splits that are not given from train; return what was drawn for testing."""
    wanted = [split for split in ("test", "val") if split not in parts]
    whole, drawn = len(parts["train"]), ""
    for number, split in enumerate(wanted):
        share = options.test_share if split == "test" else options.val_share
        pool: dict[str, list[str]] = {}
        for entry in parts["train"]:
            pool.setdefault(ANY if several else entry.labels[0], []).append(entry.file)
        left = len(wanted) - number
        if few := [
            f"{name} ({len(files)})" if name else f"{len(files)}"
            for name, files in pool.items()
            if len(files) <= left
        ]:
            raise PedigreeError(
                f"{raw}: too few images to draw {split} from, and leave some to train on: {listed(few)}: add images"
            )
        patient_of = {entry.file: entry.patient for entry in parts["train"] if entry.patient}
        chosen, how = _chosen(raw, split, pool, patient_of, share, left, options)
        parts[split] = [entry for entry in parts["train"] if entry.file in chosen]
        parts["train"] = [entry for entry in parts["train"] if entry.file not in chosen]
        if split == "test":
            drawn = f"{len(chosen):,} of {whole:,} images, {how}"
    return drawn


def _chosen(
    raw: Path,
    split: str,
    pool: Mapping[str, Sequence[str]],
    patient_of: Mapping[str, str],
    share: float,
    keep: int,
    options: FilesPrepareParams,
) -> tuple[frozenset[str], str]:
    if not patient_of:
        return groups.draw_each(pool, share, keep, options.seed, options.resplit), "the same share of each class"
    chosen = groups.draw(pool, patient_of, share, keep, options.seed, options.resplit)
    if chosen is None:
        raise PedigreeError(
            f"{raw}: the patients are too few, or have too many images each, to draw about {share:.0%} of each "
            f"class for {split} by whole patients: name the splits of the images, or set another share"
        )
    taken = {patient_of[file] for file in chosen if file in patient_of}
    return chosen, f"by {len(taken):,} of {len(set(patient_of.values())):,} patients"
