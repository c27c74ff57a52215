"""Blocks that one process and thread at a time may be in; whoever has to wait says for whom."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from components import files, processes

log = logging.getLogger("pedigree.lock")

NOTED = 2.0
"""Seconds after which whoever holds a lock has surely written down who it is."""


@contextmanager
def alone(file: Path, doing: str) -> Iterator[None]:
    """Wait until nobody else holds `file`, and hold it while the block runs; blocks may nest within a thread.

    The lock is the operating system's, so that a process that is killed holds nothing.

    Args:
        file: Made if it is not there; `<file>.json` says who holds it.
        doing: What the block does, for those who wait: "the training of vision".
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _wait(lock, file)
    try:
        if lock.lock_counter == 1:
            files.write_json(_note(file), {"doing": doing, **processes.this().model_dump()})
        yield
    finally:
        lock.release()


def _wait(lock: FileLock, file: Path) -> None:
    """Take a lock that somebody has, and say for whom we wait: whoever took it is about to write that down."""
    end = time.monotonic() + NOTED
    while (who := holder(file)) == _ANOTHER and time.monotonic() < end:
        with suppress(Timeout):
            lock.acquire(timeout=0.05)
            return
    log.info("waiting for %s", who)
    lock.acquire()


@contextmanager
def if_free(file: Path) -> Iterator[bool]:
    """Hold `file` while the block runs, if nobody else does; give whether that is so."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


_KEPT: dict[Path, FileLock] = {}


def kept(file: Path) -> bool:
    """Hold `file` until it is let go or this process ends, if no other one does; tell whether that is so."""
    if file not in _KEPT:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, thread_local=False)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            _KEPT[file] = lock
    return file in _KEPT


def let_go(file: Path) -> None:
    """Hold `file` no more, if it was kept."""
    if lock := _KEPT.pop(file, None):
        lock.release()


def held(file: Path) -> bool:
    """Tell whether some process is in a block of this file."""
    if not file.exists():
        return False
    with if_free(file) as free:
        return not free


_ANOTHER = "another process"


def holder(file: Path) -> str:
    """Return who holds the file: "the training of vision (pid 12 on node)"."""
    try:
        note = json.loads(_note(file).read_bytes())
        process = processes.Process.model_validate(note)
        return f"{note['doing']} (pid {process.pid} on {process.host})" if not process.gone else _ANOTHER
    except (OSError, ValueError, KeyError, TypeError):
        return _ANOTHER


def _note(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")
