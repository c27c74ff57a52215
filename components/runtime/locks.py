"""Locks between processes and threads. A waiting process logs which one it waits for."""

import fcntl
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from components.runtime import files, processes

log = logging.getLogger("pedigree.lock")

NOTED = 2.0
"""Seconds within which the holder of a lock has recorded its identity."""
POLL_SECONDS = 0.2
"""Seconds between two looks for a free lock among several."""


@contextmanager
def alone(file: Path, doing: str) -> Iterator[None]:
    """Wait for the lock `file` and hold it while the block runs. A thread may nest such blocks.

    The operating system releases the lock if the process is killed.

    Args:
        file: Lock file, created if missing; `<file>.json` identifies the holder.
        doing: What the block does, for the message of those who wait: "the training of digits".
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _wait(lock, file)
    with _held(lock, file, doing):
        yield


@contextmanager
def alone_if_free(file: Path, doing: str) -> Iterator[bool]:
    """Hold the lock `file` as `alone` does, but without waiting; yield whether it is held."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    with _held(lock, file, doing):
        yield True


@contextmanager
def some(named: Mapping[str, Path], number: int, turn: Path, doing: str) -> Iterator[Sequence[str]]:
    """Wait for `number` of several locks and hold them while the block runs, as `alone` does; yield their names.

    Whoever waits holds the lock `turn`: it has the first that are free, however many it wants, and no two can wait
    for each other. Those who wait for their turn are in no order.

    Args:
        named: Lock files by name.
        number: How many of them to hold, at most all.
        turn: Another lock file.
        doing: What the block does, for the message of those who wait.
    """
    with ExitStack() as stack:
        mine: set[str] = set()
        with alone(turn, doing):
            said = ""
            while True:
                for name, file in named.items():
                    wanted = len(mine) < number and name not in mine and not held(file)
                    if wanted and stack.enter_context(alone_if_free(file, doing)):
                        mine.add(name)
                if len(mine) == number:
                    break
                text = " or ".join(sorted({holder(file) for name, file in named.items() if name not in mine}))
                if text != said:
                    log.info("waiting for %s", text)
                    said = text
                time.sleep(POLL_SECONDS)
        yield [name for name in named if name in mine]


@contextmanager
def _held(lock: FileLock, file: Path, doing: str) -> Iterator[None]:
    """Record who holds an acquired lock, and release it at the end."""
    try:
        if lock.lock_counter == 1:
            files.write_json(
                note_of(file), {"doing": doing, "host": platform.node(), **processes.this().model_dump()}
            )
        yield
    finally:
        lock.release()


def _wait(lock: FileLock, file: Path) -> None:
    """Wait for a held lock and log its holder, who may still be about to record its identity."""
    end = time.monotonic() + NOTED
    while (who := holder(file)) == _ANOTHER and time.monotonic() < end:
        with suppress(Timeout):
            lock.acquire(timeout=0.05)
            return
    log.info("waiting for %s", who)
    lock.acquire()


@contextmanager
def if_free(file: Path) -> Iterator[bool]:
    """Hold the lock `file` while the block runs, if it is free; yield whether it is held."""
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


_HELD: dict[Path, FileLock] = {}
_HOLDING = threading.Lock()


def hold(file: Path) -> None:
    """Hold the lock `file`, which only this process holds for longer than a moment, until it ends."""
    with _HOLDING:
        if not file.exists() and (removed := _HELD.pop(file, None)):  # with its folder
            removed.release()
        while file not in _HELD:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(file, thread_local=False)
            with suppress(FileNotFoundError):  # the folder was removed meanwhile, as it had no holder yet
                lock.acquire()
                _HELD[file] = lock


def held(file: Path) -> bool:
    """Return whether a process holds the lock `file`; who asks at the same time does not count."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


_ANOTHER = "another process"


def holder(file: Path) -> str:
    """Return who holds the file: "the training of digits (pid 12 on node)"."""
    try:
        note = json.loads(note_of(file).read_bytes())
        process = processes.Process.model_validate(note)
        return f"{note['doing']} (pid {process.pid} on {note['host']})" if not process.gone else _ANOTHER
    except (OSError, ValueError, KeyError, TypeError):
        return _ANOTHER


def note_of(file: Path) -> Path:
    """Return the file beside a lock that says who holds it."""
    return file.with_name(f"{file.name}.json")
