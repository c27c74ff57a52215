"""Splits of images that have no single class: test and val drawn from train where the data set has none."""

import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from components.datasets import groups
from components.datasets.raw_files import listed
from components.errors import PedigreeError
from components.images.labels.folders import GROUP
from components.params import FilesPrepareParams

log = logging.getLogger("pedigree.prepare")


@dataclass(frozen=True)
class Drawn:
    """The images of each split."""

    files: Mapping[str, Sequence[str]]
    """Split to paths below the raw folder, sorted."""
    drawn: str = ""
    """What was drawn for testing; empty if the data set has a test split."""
    group: str = ""
    """Pattern that finds the group in a file's name; empty unless test was drawn by groups."""
    note: str = ""
    """What to say of the draw beside all results; may be empty."""


def divide(raw: Path, given: Mapping[str, Sequence[str]], options: FilesPrepareParams) -> Drawn:
    """Draw test and val from train if they are not given, or, with `resplit`, from all images.

    If file names tell groups, whole groups are drawn, and an image of a group in test is in no other split that is
    drawn. Images of a group may be in two given splits.

    Args:
        raw: The raw folder, for messages.
        given: Split to paths of images.
        options: The shares, the seed and the number of the draw.

    Raises:
        PedigreeError: there are no images to train on, or too few to draw from.
    """
    found = {split: sorted(files) for split, files in given.items() if files}
    if options.resplit:
        found = {"train": sorted(file for files in found.values() for file in files)}
    if "train" not in found:
        there = f", only for {listed([*found])}" if found else ""
        raise PedigreeError(f"{raw} has no annotated images for training{there}: add some")
    missing = [split for split in ("test", "val") if split not in found]
    pool = found["train"]
    if len(pool) <= len(missing):
        raise PedigreeError(
            f"{raw}: {len(pool)} images are too few to draw {' and '.join(missing)} from, and to train on"
        )
    if "test" not in missing:
        val = {"val": groups.draw_each({"": pool}, options.val_share, 1, *_draw(options))} if missing else {}
        return Drawn(found | _parts(pool, val))
    return _drawn(raw, found, missing, options)


def _drawn(
    raw: Path, found: Mapping[str, Sequence[str]], missing: Sequence[str], options: FilesPrepareParams
) -> Drawn:
    """Draw test, and val if it is missing, too."""
    pool, note, group = found["train"], "", ""
    group_of = groups.found(pool, GROUP, "group")
    several = 1 < len(set(group_of.values())) < len(group_of)
    keep, draw = len(missing), _draw(options)
    chosen: dict[str, frozenset[str]] = {}
    if several and (test := groups.draw({"": pool}, group_of, options.test_share, keep, *draw)):
        log.info(f"{raw}: {groups.summary(pool, group_of, 'group', 'image')}")
        chosen, group = {"test": test}, GROUP
        rest = [file for file in pool if file not in test]
        if "val" in missing and (val := groups.draw({"": rest}, group_of, options.val_share, 1, *draw)):
            chosen["val"] = val
        some, every = len({group_of[file] for file in test if file in group_of}), len(set(group_of.values()))
        how = f", by {some:,} of {every:,} groups that file names tell"
    else:
        if several:
            note = "groups that file names tell are too uneven to draw whole: a group may be in two splits"
            log.warning(
                f"{raw.name}: {note}: if images of a group are alike, put those for testing into a split of test"
            )
        chosen, how = {"test": groups.draw_each({"": pool}, options.test_share, keep, *draw)}, ""
    if "val" in missing and "val" not in chosen:
        rest = [file for file in pool if file not in chosen["test"]]
        chosen["val"] = groups.draw_each({"": rest}, options.val_share, 1, *draw)
    drawn = f"{len(chosen['test']):,} of {len(pool):,} images{how}"
    return Drawn({**found, **_parts(pool, chosen)}, drawn, group, note)


def _draw(options: FilesPrepareParams) -> tuple[int, int]:
    return options.seed, options.resplit


def _parts(pool: Sequence[str], chosen: Mapping[str, AbstractSet[str]]) -> dict[str, list[str]]:
    """Return the files of the splits that were chosen from a pool, and those of train, which are left."""
    parts = {split: [file for file in pool if file in files] for split, files in chosen.items()}
    parts["train"] = [file for file in pool if not any(file in files for files in chosen.values())]
    return parts
