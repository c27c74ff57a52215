"""Atomic files and folders: written under a temporary name, flushed to disk, and renamed."""

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from components.errors import DamagedError, PedigreeError
from components.runtime import processes

SEAL = "SHA256SUMS"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_OLD = "old"
_NAME = re.compile(r"\.(?:new|old|scratch)-(?:[0-9a-f]{8}|.+-\d+-[\d.]+)$")
"""The end of a hidden name: a token or, in older versions, the host, PID and start time of a process."""


@contextmanager
def _beside(path: Path, what: str) -> Iterator[Path]:
    """Yield a hidden name next to `path` that is the block's own, after cleaning up what killed processes left.

    A lock shows that a name is in use, to processes in other containers and on other hosts, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _names(path.parent.glob(f".{glob.escape(path.name)}.{what}-*")):
        with left_behind(left) as free:
            if free and what == _OLD and not path.exists():
                with suppress(FileNotFoundError):  # only the lock was left
                    left.rename(path)  # the owner was killed between two renames: restore the last good one
            if free:
                remove(left)
    name = path.with_name(f".{path.name}.{what}-{secrets.token_hex(4)}")
    with FileLock(lock_of(name), thread_local=False):
        try:
            yield name
        finally:
            lock_of(name).unlink(missing_ok=True)


def _names(found: Iterable[Path]) -> list[Path]:
    """Return the hidden names among paths, which may be those of their locks."""
    return sorted({path.with_name(path.name.removesuffix(_LOCK)) for path in found if is_hidden(path)})


_LOCK = ".lock"


def is_hidden(path: Path) -> bool:
    """Return whether this is a hidden name of something that is being written, or its lock."""
    return _NAME.search(path.name.removesuffix(_LOCK)) is not None


def lock_of(name: Path) -> Path:
    """Return the lock that a process holds while it uses a hidden name."""
    return name.with_name(f"{name.name}{_LOCK}")


@contextmanager
def left_behind(name: Path) -> Iterator[bool]:
    """Yield whether a killed process left a hidden name, which no other process then touches during the block."""
    lock = FileLock(lock_of(name))
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):  # in use, or another user's
        yield False
        return
    try:
        yield not _of_older_code(name)
    finally:
        with suppress(OSError):
            lock_of(name).unlink()  # while it is held, so that whoever waits for it takes a new one
        lock.release()


def _of_older_code(name: Path) -> bool:
    """Return whether a process of an earlier version, which put no lock beside its names, still uses this one."""
    owner = processes.labelled(re.sub(r"^.*\.(?:new|old|scratch)-", "", name.name))
    return owner is not None and owner.born == processes.of(owner.pid).born


def left_below(folder: Path) -> Iterator[Path]:
    """Yield hidden names below a folder that killed processes were writing, except for `.old-` ones."""
    for name in _names(folder.rglob(".*")):
        if f".{_OLD}-" in name.name and name.exists():
            continue
        with left_behind(name) as free:
            left = free and os.path.lexists(name)
        if left:
            yield name


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_beside(path) as new:
        new.write_text(text, encoding="utf-8")
        publish(new, path)


@contextmanager
def new_beside(path: Path) -> Iterator[Path]:
    """Yield a hidden name next to `path` for a file to write and publish; it is removed afterwards."""
    with _beside(path, "new") as new:
        try:
            yield new
        finally:
            new.unlink(missing_ok=True)


def publish(new: Path, path: Path) -> None:
    """Flush the file `new` to disk and rename it to `path`, replacing any file there."""
    _flush(new)
    new.replace(path)
    _flush(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically, as indented JSON with a final newline."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def copy(path: Path, to: Path) -> None:
    """Copy a file atomically."""
    with new_beside(to) as new:
        shutil.copyfile(path, new)
        publish(new, to)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` if the block succeeds.

    If the block raises, the new folder is removed and `folder` stays unchanged.
    """
    with _beside(folder, "new") as new, _beside(folder, _OLD) as old:
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
            if old.exists() and not folder.exists():  # interrupted between two renames
                old.rename(folder)
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def filled(folder: Path) -> bool:
    """Return whether a folder contains a file at any depth, including those at which `rglob` cannot recurse."""
    waiting = [folder]
    while waiting:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            for path in waiting.pop().iterdir():
                if path.is_file():
                    return True
                if path.is_dir() and not path.is_symlink():
                    waiting.append(path)
    return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write SHA256SUMS for a finished folder, in the format of `sha256sum --check`."""
    write_text(folder / SEAL, listing(folder))


def listing(folder: Path) -> str:
    """Return a line with SHA-256 and path for each file below a folder, except for the seal."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return "".join(f"{sha256(folder / name)}  {name}\n" for name in names if name != SEAL)


def check_seal(folder: Path, stage: str) -> None:
    """Verify the seal of a folder before a stage reads it, at about 1.5 GB/s.

    Args:
        folder: The folder that `stage` wrote.
        stage: The stage to name in the error.

    Raises:
        PedigreeError: there is no seal, or a file is missing, unexpected or damaged.
    """
    try:
        sealed = (folder / SEAL).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise PedigreeError(f"{folder / SEAL} is missing: run the {stage} stage again") from None
    if (present := listing(folder)) != sealed:
        before, now = (_hashes(text) for text in (sealed, present))
        differ = sorted(name for name in before | now if name and before.get(name) != now.get(name)) or [SEAL]
        raise DamagedError(
            f"{folder / differ[0]} is damaged or missing, as {SEAL} does not match: run the {stage} stage again"
        )


def _hashes(text: str) -> dict[str, str]:
    return {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """Yield an empty folder next to `beside` that is removed when the block ends."""
    with _beside(beside, "scratch") as folder:
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def link(path: Path, to: Path) -> None:
    """Make `path` a symbolic link to a folder, atomically, in place of an earlier link.

    The link is relative, so that a checkout can be moved. Where links cannot be made, there is none.
    """
    with suppress(OSError), new_beside(path) as new:
        new.symlink_to(os.path.relpath(to, path.parent), target_is_directory=True)
        publish(new, path)


def link_folder(source: Path, target: Path) -> None:
    """Hard-link the files of `source` below `target`, or copy them if linking fails.

    The files must not be modified in place afterwards. Replacing `source` does not affect `target`.
    """

    def link(old: str, new: str) -> None:
        try:
            os.link(os.path.realpath(old), new)  # of a link, the file: the link may not lead there from elsewhere
        except OSError:
            shutil.copyfile(old, new)

    with replacing(target) as folder:
        shutil.copytree(source, folder, copy_function=link, dirs_exist_ok=True)
