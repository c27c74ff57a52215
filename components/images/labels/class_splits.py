"""Raw folders of images that are split by class: those of testing are others than those of training.

The layout is raw/{train,val,test}/<class>/<file>, or raw/<class>/<file>. Classes can be in folders of groups, such
as alphabets: raw/{train,val,test}/<group>/<class>/<file>, or raw/<group>/<class>/<file>.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from components.datasets import ingest
from components.datasets.raw_files import COMPOSED, SPLITS, about, by_name, listed, split_of, visible
from components.errors import PedigreeError
from components.images.labels.folders import Counts, Folders, Survey
from components.params import FilesPrepareParams

FEWEST = 2
"""Fewest images of a class: one to know it by, and one to recognise."""
SUPPORT = "support"
"""The folder of the images by which classes are to be known."""
GROUPS = 3
"""Fewest groups from which splits are drawn as whole groups."""

Classes = Mapping[str, str]
"""The names of classes, such as `<group>/<class>`, sorted; and their folders as paths below the raw folder."""


def survey(raw: Path, options: FilesPrepareParams) -> Survey:
    """Survey a raw folder whose splits have different classes, without opening files.

    Splits without a folder are drawn: whole groups if there are several, or else classes.

    Raises:
        PedigreeError: there are too few classes, a class is in two splits, or has too few files.
    """
    folders: dict[str, Classes]
    folders = {split: dict(_classes(raw, parent)) for split, parent in (_splits(raw) or {"train": ""}).items()}
    _check_disjoint(raw, folders)
    drawn = ""
    if options.resplit:
        folders = {"train": {name: path for classes in folders.values() for name, path in classes.items()}}
    if "train" not in folders:
        raise PedigreeError(f"{raw / 'train'} does not exist: put a folder with images there for each class")
    number = options.resplit
    if "test" not in folders:
        total = len(folders["train"])
        chosen, how = _draw(raw, folders["train"], options.test_share, "test", options.seed, number)
        folders = _moved(folders, "test", chosen)
        drawn = f"{len(chosen):,} of {total:,} classes, {how}"
    if "val" not in folders:
        chosen, _ = _draw(raw, folders["train"], options.val_share, "val", options.seed, number)
        folders = _moved(folders, "val", chosen)
    for split, classes in folders.items():
        if len(classes) < FEWEST:
            raise PedigreeError(f"{raw}: {split} has {_count(classes)}: each split needs at least two: add classes")
    # Those of val come first: see `FewShotFacts.known`.
    names = [name for split in ("val", "train", "test") for name in folders[split]]
    return _surveyed(
        raw, {split: {n: [p] for n, p in each.items()} for split, each in folders.items()}, names, drawn
    )


def of_support(raw: Path) -> Survey:
    """Survey raw/support/<class>/<file>, or raw/<class>/<file>, and raw/test with the same classes, if it exists.

    Raises:
        PedigreeError: there are too few classes, the two have different classes, or a class has too few files.
    """
    top = {name for name, is_folder in visible(raw) if is_folder}
    named = {("train" if name.casefold() == SUPPORT else split_of(name)): name for name in sorted(top)}
    if "train" in named:
        support, test = dict(_classes(raw, named["train"])), dict(_classes(raw, named.get("test", "")))
        test = test if "test" in named else {}
    else:
        support, test = dict(_classes(raw, "")), {}
    if len(support) < FEWEST:
        raise PedigreeError(
            f"{raw} has {_count(support)} to learn: put images into {raw}/{SUPPORT}/<class>/ for at least two "
            f"classes, and others of the same classes into {raw}/test/<class>/"
        )
    if test and test.keys() != support.keys():
        odd = sorted(test.keys() ^ support.keys())
        raise PedigreeError(
            f"{raw}: {SUPPORT} and test must have the same classes, and {listed(odd)} is in one of them alone: add "
            "images of it to the other, or remove it"
        )
    folders = {"train": support, "val": {}, "test": test}
    return _surveyed(raw, {split: {n: [p] for n, p in each.items()} for split, each in folders.items()}, [*support])


def _surveyed(raw: Path, folders: Folders, names: Sequence[str], drawn: str = "") -> Survey:
    counts: Counts = {
        split: {name: sum(1 for _ in visible(raw / paths[0])) for name, paths in classes.items()}
        for split, classes in folders.items()
    }
    few = [
        f"{name} ({count})"
        for split, classes in counts.items()
        for name, count in classes.items()
        if count < FEWEST and not (split == "test" and name in folders["train"])
    ]
    if few:
        raise PedigreeError(
            f"{raw}: a class needs at least {FEWEST} images, one to know it by and one to recognise, and "
            f"{listed(few)} has fewer: add images, or remove the class"
        )
    loose = sorted({name for name, is_folder in visible(raw) if not is_folder} - {*about(raw), COMPOSED})
    strays = dict.fromkeys(loose, "outside the class folders")
    return Survey(raw, folders, counts, strays, drawn=drawn, names=names)


def _splits(raw: Path) -> dict[str, str]:
    """Return the folder of each split that has one, in the order of `SPLITS`."""
    found: dict[str, str] = {}
    for name, is_folder in sorted(visible(raw)):
        split = split_of(name) if is_folder else None
        if split and split in found:
            raise PedigreeError(
                f"{raw / found[split]} and {raw / name} are each the folder of {split}: put their images into one"
            )
        if split:
            found[split] = name
    return {split: found[split] for split in SPLITS if split in found}


def _classes(raw: Path, parent: str, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and path of each class below a folder: a folder that holds files."""
    inside = [*visible(raw / parent)]
    names = by_name(raw / parent, (each for each, is_folder in inside if is_folder))
    if name and (not names or any(not is_folder for _, is_folder in inside)):
        yield name, parent
        return
    for own, folder in names.items():
        yield from _classes(raw, f"{parent}/{folder}" if parent else folder, f"{name}/{own}" if name else own)


def _check_disjoint(raw: Path, folders: Mapping[str, Classes]) -> None:
    if not any(folders.values()):
        raise PedigreeError(
            f"{raw}: there are no images: run `pedigree data`, or put folders {raw}/<class>/ or "
            f"{raw}/{{train,test}}/<class>/ there"
        )
    seen: dict[str, str] = {}
    for split, classes in folders.items():
        if both := sorted(classes.keys() & seen.keys()):
            raise PedigreeError(
                f"{raw}: {listed(both)} is in {seen[both[0]]} and in {split}: the classes of testing must be "
                "others than those of training, so leave the folder in one of them"
            )
        seen |= dict.fromkeys(classes, split)


def _draw(raw: Path, pool: Classes, share: float, split: str, seed: int, number: int) -> tuple[set[str], str]:
    """Return about a share of the classes, as whole groups if there are several; and how they were drawn."""
    groups: dict[str, list[str]] = {}
    for name in pool:
        groups.setdefault(name.rpartition("/")[0] or name, []).append(name)
    whole = len(groups) >= GROUPS and len(groups) < len(pool)
    units = groups if whole else {name: [name] for name in pool}
    wanted = max(FEWEST, round(share * len(pool)))
    chosen: set[str] = set()
    for unit in ingest.shuffled(units, seed, number):
        if len(chosen) < wanted and len(pool) - len(chosen) - len(units[unit]) >= FEWEST:
            chosen.update(units[unit])
    if len(chosen) < FEWEST:
        raise PedigreeError(f"{raw}: {_count(pool)} are too few to draw {split} from: add classes")
    taken = sum(members[0] in chosen for members in units.values())
    return chosen, f"{taken:,} of {len(units):,} groups" if whole else "drawn one by one"


def _moved(folders: Mapping[str, Classes], split: str, chosen: set[str]) -> dict[str, Classes]:
    """Return the folders with chosen classes of train in a split of their own."""
    train = folders["train"]
    return {
        **folders,
        "train": {name: path for name, path in train.items() if name not in chosen},
        split: {name: path for name, path in train.items() if name in chosen},
    }


def _count(classes: Classes) -> str:
    return "1 class" if len(classes) == 1 else f"{len(classes):,} classes"
