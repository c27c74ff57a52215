"""Files that are there whole or not at all: written under a new name, flushed to disk, renamed."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components import processes
from components.errors import DamagedError, PedigreeError

SEAL = "SHA256SUMS"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_OLD = "old"


def _beside(path: Path, what: str) -> Path:
    """Return a hidden name next to `path` that is this process's, when what dead processes left is tidied up."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{what}-*"):
        owner = processes.labelled(left.name.removeprefix(f".{path.name}.{what}-"))
        if owner is None or not owner.gone:
            continue
        if what == _OLD and not path.exists():
            left.rename(path)  # it was killed between two renames, so this is still the last good one
        else:
            remove(left)
    return path.with_name(f".{path.name}.{what}-{processes.this().label}")


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` by `text`, or leave it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_beside(path) as new:
        new.write_text(text, encoding="utf-8")
        publish(new, path)


@contextmanager
def new_beside(path: Path) -> Iterator[Path]:
    """Give a hidden name next to `path` for a file to be written, and then published; it is gone afterwards."""
    new = _beside(path, "new")
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


def publish(new: Path, path: Path) -> None:
    """Flush the file `new` to disk and give it the name `path`, whatever had that name before."""
    _flush(new)
    new.replace(path)
    _flush(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace the file at `path` by `value` as indented JSON with a newline at its end."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def copy(path: Path, to: Path) -> None:
    """Copy a file whole or not at all."""
    with new_beside(to) as new:
        shutil.copyfile(path, new)
        publish(new, to)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends well it takes the place of `folder`.

    When the block raises, what was written is removed and `folder` stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = _beside(folder, "new"), _beside(folder, _OLD)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        for path in [*new.rglob("*"), new]:
            _flush(path)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        _flush(folder.parent)
    finally:
        if old.exists() and not folder.exists():  # it ended between two renames
            old.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write SHA256SUMS: the hash of each file below a folder that is whole, as `sha256sum --check` takes it."""
    write_text(folder / SEAL, listing(folder))


def listing(folder: Path) -> str:
    """Return a line for each file below a folder but the seal: its SHA-256 and its path."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return "".join(f"{sha256(folder / name)}  {name}\n" for name in found if name != SEAL)


def check_seal(folder: Path, stage: str) -> None:
    """Compare a folder with its seal; a stage does so with what it is about to read, at some 1.5 GB a second.

    Args:
        folder: What `stage` wrote.
        stage: Name of the stage to run again when it is not as it was.

    Raises:
        PedigreeError: there is no seal, or a file is missing, is not one of it, or is not what was written.
    """
    try:
        sealed = (folder / SEAL).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise PedigreeError(f"{folder / SEAL} is missing: run the {stage} stage again") from None
    if (found := listing(folder)) != sealed:
        before, now = (_hashes(text) for text in (sealed, found))
        differ = sorted(name for name in before | now if name and before.get(name) != now.get(name)) or [SEAL]
        raise DamagedError(
            f"{folder / differ[0]} is damaged or missing, as {SEAL} beside it tells: run the {stage} stage again"
        )


def _hashes(text: str) -> dict[str, str]:
    return {name: known for known, _, name in (line.partition("  ") for line in text.splitlines())}


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """Give an empty folder next to `beside` that is gone when the block ends."""
    folder = _beside(beside, "scratch")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def link_folder(source: Path, target: Path) -> None:
    """Give the files of `source` a second name below `target`, which costs no space; copy where that cannot be.

    Nobody may write into the files afterwards: whoever replaces `source` gives `target` nothing.
    """

    def link(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError:
            shutil.copyfile(old, new)

    with replacing(target) as folder:
        shutil.copytree(source, folder, copy_function=link, dirs_exist_ok=True)
