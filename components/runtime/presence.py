"""Which processes of a project live, by the lock that each holds, and the children that they must not leave."""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.runtime import locks, processes
from components.runtime.processes import Process

FOLDER = Path("build", ".processes")
"""Below the project's folder: a folder per process, with its lock and a file per child."""
LOCK = "lock"
FOREIGN_SECONDS = 24 * 3600
"""Seconds for which the notes of a dead process of another container or host stay: somebody there may need them."""


def announce(root: Path) -> Process:
    """Show the project's other processes that this one lives, until it ends; return it."""
    process = processes.this()
    locks.hold(_folder(root, process) / LOCK)
    return process


def lives(root: Path, process: Process) -> bool:
    """Return whether a process that announced itself still runs, here or in another container or host."""
    return not process.gone if process.here else locks.held(_folder(root, process) / LOCK)


def _folder(root: Path, process: Process) -> Path:
    return root.resolve() / FOLDER / process.label


def notes(root: Path, what: str) -> Path:
    """Return the folder in which this process records its children of one kind."""
    return _folder(root, announce(root)) / what


def note(folder: Path, started: Iterable[Process]) -> None:
    """Record started processes, so that others can end them if this process is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    for process in started:
        (folder / process.label).touch()


@contextmanager
def noted(folder: Path, pid: int) -> Iterator[None]:
    """Record a started process until the block, which waits for it, ends."""
    process = processes.of(pid)
    note(folder, [process])
    try:
        yield
    finally:
        (folder / process.label).unlink(missing_ok=True)


def end_noted(folder: Path) -> list[Process]:
    """Kill the processes that a folder records and all their descendants; return those that were running.

    Those of another container or host cannot be ended from here.
    """
    noted = [process for file in folder.rglob("*") if (process := processes.labelled(file.name))]
    running = [process for process in noted if process.here and not process.gone]
    ended = processes.end({each for process in running for each in processes.tree(process.pid)}, seconds=0)
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def end_orphans(root: Path) -> list[Process]:
    """Kill the orphans of this project's dead processes; return those that were running.

    Most orphans end by themselves within seconds, but until then a worker could go on with a training that
    another process resumes.
    """
    ended: list[Process] = []
    for folder in (root / FOLDER).glob("*/"):
        owner = processes.labelled(folder.name)
        if owner is None:
            continue
        with suppress(OSError):  # another process has removed it, or it is another user's
            if owner.here and owner.gone:
                ended += end_noted(folder)
            elif (
                not owner.here
                and not locks.held(folder / LOCK)
                and time.time() - folder.stat().st_mtime > FOREIGN_SECONDS
            ):
                shutil.rmtree(folder)
    return ended
