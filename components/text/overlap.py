"""Text that is in two splits: a model is then tested on what it has learnt by heart, and its results mislead."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from components.errors import PedigreeError
from components.text.corpus import Text, whole

log = logging.getLogger("pedigree.prepare")

LONG = 100
"""Least number of characters of a passage; natural texts hardly share so many by chance."""
LINES = 16
"""Largest number of lines that make up a passage."""
SHARED = 0.05
"""Share of a split's passages from which it is said that they are in another split, too.

Docstrings of two packages share 0.015 between random parts; Shakespeare's plays and WikiText-2 share none.
"""


def report(texts: Mapping[str, Text]) -> list[str]:
    """Return a note for each split of which other splits have many passages, and warn of them.

    Memory holds about 100 bytes for each line of val and test.

    Raises:
        PedigreeError: two files are the same text, but for spaces and line ends at most.
    """
    _check_files(sorted({piece.file for text in texts.values() for piece in text.pieces}))
    held = {split: set(_passages(texts[split])) for split in ("test", "val")}
    notes = []
    if texts["test"] != texts["val"]:
        notes.append(_note("val", "test", len(held["val"] & held["test"]), len(held["test"])))
    found: dict[str, set[int]] = {split: set() for split in held}
    for passage in _passages(texts["train"]):
        for split, passages in held.items():
            if passage in passages:
                found[split].add(passage)
    notes += [_note("train", split, len(found[split]), len(held[split])) for split in held]
    notes = [note for note in notes if note]
    for note in notes:
        log.warning(
            f"{texts['train'].pieces[0].file.parent}: {note}: remove them from one of the two, as results mislead"
        )
    return notes


def _check_files(files: list[Path]) -> None:
    first: dict[bytes, Path] = {}
    for other in files if len(files) > 1 else ():
        one = first.setdefault(_digest(other), other)
        if one != other:
            raise PedigreeError(
                f"{one} and {other} are the same text: put different texts there, or remove one of the two, so "
                "that the splits are cut from one text by prepare.val_share and prepare.test_share"
            )


def _digest(file: Path) -> bytes:
    """Return a hash of a file's characters except white space."""
    found = hashlib.blake2b()
    for block in whole(file).blocks():
        found.update("".join(block.split()).encode())
    return found.digest()


def _note(learnt: str, split: str, shared: int, count: int) -> str:
    if shared <= SHARED * count:
        return ""
    return f"{shared / count:.0%} of the passages of {split} are in {learnt}, too"


def _passages(text: Text) -> Iterator[int]:
    """Yield a hash of each passage: from the beginning of a line on, as many lines as are long enough."""
    for block in text.blocks():
        lines = [stripped for line in block.splitlines() if (stripped := line.strip())]
        for first, passage in enumerate(lines):
            for line in lines[first + 1 : first + LINES]:
                if len(passage) >= LONG:
                    break
                passage += f"\n{line}"  # noqa: PLW2901 (it begins with that line)
            if len(passage) >= LONG:
                yield hash(passage)
