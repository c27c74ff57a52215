"""Text files in a folder for each class: raw/{train,test}/<class>/<file>.txt, or raw/<class>/<file>.txt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components.datasets import ingest, raw_files
from components.datasets.ingest import Unusable
from components.errors import PedigreeError
from components.text.lines import HEAD, LONGEST, decoded, expect_text

UNLABELLED = ("unsup", "unlabeled", "unlabelled")
"""Folders of texts without a class, as in aclImdb (Maas et al. 2011, ai.stanford.edu/~amaas/data/sentiment)."""
SUFFIX = ".txt"


@dataclass(frozen=True)
class Survey:
    """The text files by split and class; none has been opened."""

    files: Mapping[str, Mapping[str, Sequence[str]]]
    """Split to class to its sorted files, as paths below the raw folder; all of train if there are no splits."""
    strays: Mapping[str, str]
    """Files that cannot be used, and why."""
    ignored: Sequence[str]
    """Files about the data, and folders of texts without a class."""


def survey(raw: Path) -> Survey:
    """List the folders without opening a file.

    Raises:
        PedigreeError: there are no folders of classes, or two are the same split or class.
    """
    entries = sorted(name for name, is_folder in raw_files.visible(raw) if is_folder)
    splits = _splits(raw, entries)
    files: dict[str, dict[str, list[str]]] = {}
    strays: dict[str, str] = {}
    ignored = raw_files.about(raw)
    for name, is_folder in raw_files.visible(raw):
        if not is_folder and name not in ignored and name != raw_files.COMPOSED:
            strays[name] = "outside the class folders"
        if is_folder and splits and name not in splits.values():
            strays[name] = "a folder that is no split, so that nothing in it is read"
    for split, parent in (splits or {"train": ""}).items():
        inside = [name for name, is_folder in raw_files.visible(raw / parent) if is_folder]
        unlabelled = [name for name in inside if name.lower() in UNLABELLED]
        ignored += [PurePosixPath(parent, name).as_posix() for name in unlabelled]
        labelled = raw_files.by_name(raw / parent, (name for name in inside if name not in unlabelled))
        files[split] = {
            label: _texts(raw, PurePosixPath(parent, folder).as_posix(), strays)
            for label, folder in labelled.items()
        }
    if not any(files.get("train", {}).values()):
        raise PedigreeError(
            f"{raw} has no texts to train on: put a table there, such as train.csv, or folders "
            f"<class>/<file>{SUFFIX}, maybe below train/ and test/"
        )
    return Survey(files, strays, sorted(ignored))


def _splits(raw: Path, entries: Sequence[str]) -> dict[str, str]:
    """Return the folder of each split, in the order of `raw_files.SPLITS`."""
    found: dict[str, str] = {}
    for name in entries:
        if (split := raw_files.split_of(name)) and (other := found.setdefault(split, name)) != name:
            raise PedigreeError(f"{raw / other} and {raw / name} are each the folder of {split}: rename one")
    return {split: found[split] for split in raw_files.SPLITS if split in found}


def _texts(raw: Path, folder: str, strays: dict[str, str]) -> list[str]:
    texts = []
    for name, is_folder in sorted(raw_files.visible(raw / folder)):
        if is_folder:
            strays[f"{folder}/{name}"] = "a folder inside a class folder"
        elif name.lower().endswith(SUFFIX):
            texts.append(f"{folder}/{name}")
        else:
            strays[f"{folder}/{name}"] = f"not a {SUFFIX} file"
    return texts


def read(raw: Path, file: str) -> str:
    """Return the text of a file.

    Args:
        raw: The raw folder.
        file: The file's path below `raw`.

    Raises:
        Unusable: it is not UTF-8 text, is empty or too large, or is a pointer, as of Git LFS.
    """
    data = ingest.contents(raw, file, "a text")
    if len(data) > LONGEST:
        raise Unusable(f"over {LONGEST:,} bytes")
    expect_text(data[:HEAD])
    return decoded(data).replace("\r\n", "\n")
