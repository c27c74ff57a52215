"""Groups that file names tell, such as the speaker of a clip or the patient of an image, and samples drawn by them.

Samples of one group are alike, so a group that is in two splits lets a model be tested on what it has learnt.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from components.datasets import ingest, raw_files
from components.errors import PedigreeError

T = TypeVar("T")


def given(raw: Path, splits: Mapping[str, Sequence[T]], samples: str) -> dict[str, list[T]]:
    """Return the splits that a raw folder has; those that it lacks are to be drawn.

    Args:
        raw: The raw folder.
        splits: The samples that can be used, by split; an empty one has a file or folder of its own.
        samples: The word for them, such as "texts".

    Raises:
        PedigreeError: a split for validation or testing is there and has no sample that can be used.
    """
    for split in ("val", "test"):
        if split in splits and not splits[split]:
            raise PedigreeError(
                f"{raw} has {split} data with no {samples} that can be used: correct them, or remove them to draw "
                "others"
            )
    return {split: list(own) for split, own in splits.items() if own}


def found(files: Iterable[str], pattern: str, key: str) -> dict[str, str]:
    """Return the group of each file whose name tells one.

    Args:
        files: Paths that end with `<class>/<name>`; if a name begins with the class and "_" or "-", these are
            skipped.
        pattern: Regular expression with a group `key`, for a name without suffix; an empty one finds nothing.
        key: The group in `pattern`.
    """
    return {file: group for file in files if (group := _group(file, pattern, key))}


def of_each(files: Sequence[str], pattern: str, key: str) -> list[str]:
    """Return the group of each file as `found` does; a file whose name tells none is a group of its own."""
    known = found(files, pattern, key)
    return [known.get(file, file) for file in files]


def _group(file: str, pattern: str, key: str) -> str | None:
    path = PurePosixPath(file)
    # One person's name may have two spellings in Unicode, as names from macOS have another one than typed names.
    label, stem = raw_files.same(path.parent.name), raw_files.same(path.stem)
    match = re.search(pattern, re.sub(f"^{re.escape(label)}[_-]", "", stem)) if pattern else None
    group = match and match[key]
    return None if group and group.casefold() == label.casefold() else group


def summary(files: Sequence[str], groups: Mapping[str, str], group: str, sample: str) -> str:
    """Return the number and sizes of the groups that were found, with an example.

    Args:
        files: All files.
        groups: The groups of at least one of them.
        group: The word for a group, such as "speaker".
        sample: The word for a sample, such as "clip".
    """
    sizes = Counter(groups.values())
    fewest, most = min(sizes.values()), max(sizes.values())
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    example = next(iter(groups))
    others = len(files) - len(groups)
    count = f"counts as a {group}" if others == 1 else f"count as one {group} each"
    without = f"; {others:,} without a {group} {count}" if others else ""
    return (
        f"{len(sizes):,} {group}s, {each} {sample if most == 1 else f'{sample}s'} each, such as "
        f"'{groups[example]}' of {example}{without}"
    )


def doubt(groups: Mapping[str, str], group: str) -> str:
    """Return why several groups may be one, given the group of each file, or an empty string."""
    names = set(groups.values())
    beginnings = Counter(re.split("[ _.-]", name)[0] for name in names)
    if 1 < len(beginnings) <= len(names) / 2:
        common, count = min(beginnings.items(), key=lambda each: (-each[1], each[0]))
        return f"the names of {len(names):,} {group}s begin in {len(beginnings):,} ways, {count:,} with '{common}'"
    for file, name in groups.items():  # "anna2.wav" of anna, beside "anna2 (2).wav" of anna2
        if (stem := raw_files.same(PurePosixPath(file).stem)) != name and stem in names:
            return f"{file} is taken for one of '{name}', and '{stem}' for another {group}"
    return ""


def shared(groups: Mapping[str, Sequence[str]], split: str, other: str, group: str) -> str:
    """Return how many groups of a split are in another one, too, or an empty string.

    Args:
        groups: Split to the group of each of its files.
        split: The split that should have groups of its own.
        other: The other split.
        group: The word for a group, such as "speaker".
    """
    own = set(groups[split])
    both = own & set(groups[other])
    return f"{len(both):,} of {len(own):,} {group}s of {split} are in {other}, too" if both else ""


def draw(
    classes: Mapping[str, Sequence[str]],
    groups: Mapping[str, str],
    share: float,
    keep: int,
    seed: int,
    number: int,
) -> frozenset[str] | None:
    """Draw about a share of the files of each class, so that no group is on both sides.

    Groups are taken in the order of a hash as long as no class gets more than its share. A class that then has less
    than half of its share also gets the smallest of its other groups.

    Args:
        classes: Class to its files, more than `keep`.
        groups: The group of each file that has one; any other file can be drawn alone.
        share: Share of each class to draw.
        keep: Least files of each class that are left.
        seed: Seed of the order.
        number: Which of the seed's draws to make, from 0.

    Returns:
        The files drawn; None if a class would get less than half or more than twice its share or keep too few, or
        if most of it is in groups too large to be drawn, as where names begin with a camera's.
    """
    wanted = {name: _wanted(files, share, keep) for name, files in classes.items()}
    sizes: dict[str, Counter[str]] = {}
    for name, files in classes.items():
        for file in files:
            sizes.setdefault(groups.get(file, file), Counter())[name] += 1
    if _mostly_large(classes, sizes.values(), wanted):
        return None
    order = ingest.shuffled(sizes, seed, number)
    taken, chosen = Counter[str](), set[str]()
    for group in order:
        if all(taken[name] + count <= wanted[name] for name, count in sizes[group].items()):
            chosen.add(group)
            taken.update(sizes[group])
    members = _by_class(order, sizes)
    for name in classes:
        if 2 * taken[name] < wanted[name]:
            for group in sorted(members[name], key=lambda each: sizes[each][name]):
                if group not in chosen and 2 * taken[name] < wanted[name]:
                    chosen.add(group)
                    taken.update(sizes[group])
    for name, files in classes.items():
        if not wanted[name] <= 2 * taken[name] <= 4 * wanted[name] or len(files) - taken[name] < keep:
            return None
    return frozenset(file for files in classes.values() for file in files if groups.get(file, file) in chosen)


def _mostly_large(
    classes: Mapping[str, Sequence[str]], sizes: Iterable[Counter[str]], wanted: Mapping[str, int]
) -> bool:
    """Return whether most of a class is in groups that have more than twice what is wanted of it."""
    large = Counter[str]()
    for each in sizes:
        large.update({name: count for name, count in each.items() if count > 2 * wanted[name]})
    return any(2 * large[name] > len(files) for name, files in classes.items())


def _by_class(order: Iterable[str], sizes: Mapping[str, Counter[str]]) -> dict[str, list[str]]:
    """Return the groups of each class, in this order."""
    members: dict[str, list[str]] = {}
    for group in order:
        for name in sizes[group]:
            members.setdefault(name, []).append(group)
    return members


def draw_each(
    classes: Mapping[str, Sequence[str]], share: float, keep: int, seed: int, number: int
) -> frozenset[str]:
    """Draw a share of the files of each class, each by itself; see `draw`."""
    return frozenset(
        file
        for files in classes.values()
        for file in ingest.shuffled(files, seed, number)[: _wanted(files, share, keep)]
    )


def _wanted(files: Sequence[str], share: float, keep: int) -> int:
    return max(1, min(round(share * len(files)), len(files) - keep))
