"""Processes by number and moment of birth, so that a number that was given again is never taken for the old one."""

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict


class Process(BaseModel):
    """One process of one host, for as long as there is a world."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    born: str

    @property
    def label(self) -> str:
        """The same as a part of a file's name."""
        return f"{self.host}-{self.pid}-{self.born}"

    @property
    def gone(self) -> bool:
        """It ended; of another host's nobody here can tell."""
        return self.host == platform.node() and (not self.born or self.born != _born(self.pid))


def this() -> Process:
    """Return the process that asks."""
    return of(os.getpid())


def of(pid: int) -> Process:
    """Return the process that has this number now."""
    return Process(host=platform.node(), pid=pid, born=_born(pid))


def labelled(label: str) -> Process | None:
    """Return the process of a `label`, or None where the text is none."""
    host, *rest = label.rsplit("-", 2)
    return Process(host=host, pid=int(rest[0]), born=rest[1]) if len(rest) == 2 and rest[0].isdigit() else None


def _born(pid: int) -> str:
    """Return when a process began, in a clock that nobody can set, or nothing where there is none.

    Linux counts from the machine's start (proc(5), `starttime`); psutil's time of birth moves with the wall clock.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
        with suppress(psutil.NoSuchProcess):
            return f"{psutil.Process(pid).create_time():.2f}"
        return ""
    except ProcessLookupError:
        return ""
    state, *fields = status.rpartition(")")[2].split()  # a program's name may hold spaces and brackets
    return "" if state in {"Z", "X"} else fields[18]


def end(processes: Iterable[Process], seconds: float = 8) -> list[Process]:
    """End processes, the hard way those that do not go within `seconds`; return those that were there."""
    there = [process for process in processes if process.host == platform.node() and not process.gone]
    family: list[psutil.Process] = []
    for process in there:
        with suppress(psutil.NoSuchProcess):
            family.append(psutil.Process(process.pid))
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.terminate()
    _, alive = psutil.wait_procs(family, timeout=seconds)
    for each in alive:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(alive, timeout=8)  # the kernel takes a moment, and longer for one that writes to a disk
    return there


def tree(pid: int) -> list[Process]:
    """Return a process and all that descend from it, the oldest first."""
    try:
        parent = psutil.Process(pid)
        return [of(each.pid) for each in (parent, *parent.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": f"{1 << 32}",
    "MALLOC_ARENA_MAX": "1",
}
"""What has glibc (mallopt(3)) keep the memory that a process frees for its next update, or its next answer.

It would give activations back to the kernel each time, which hands them out again page by page, zeroed. The arena
of a thread does so whatever the thresholds, and Ray's workers train in a thread: docs/profile.md.
"""


def keeping_memory() -> dict[str, str]:
    """Return the environment of a process that computes: `MEMORY`, but for what a person has set otherwise."""
    return {name: os.environ.get(name, value) for name, value in MEMORY.items()}


NOTES = Path("build", ".processes")
"""In the project: a folder for each process that has started others, and in it a file for each of these."""


def notes(root: Path, what: str) -> Path:
    """Return the folder in which this process notes the processes of one kind that it has started."""
    return root / NOTES / this().label / what


def note(folder: Path, started: Iterable[Process]) -> None:
    """Keep which processes were started, for the day when whoever did so cannot end them."""
    folder.mkdir(parents=True, exist_ok=True)
    for process in started:
        (folder / process.label).touch()


@contextmanager
def noted(folder: Path, pid: int) -> Iterator[None]:
    """Keep that a process was started, until the block that waits for its end is over."""
    process = of(pid)
    note(folder, [process])
    try:
        yield
    finally:
        (folder / process.label).unlink(missing_ok=True)


def end_noted(folder: Path) -> list[Process]:
    """End the processes that a folder notes, and what these have started, at once; return those that were there."""
    noted = [process for file in folder.rglob("*") if (process := labelled(file.name)) and not process.gone]
    here = [process for process in noted if process.host == platform.node()]
    ended = end({each for process in here for each in tree(process.pid)}, seconds=0)
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def end_left(root: Path) -> list[Process]:
    """End what outlives processes of this project that are gone; return what was there.

    Most of it ends by itself within seconds, in which a worker would go on with a training that others take up.
    """
    ended: list[Process] = []
    for folder in (root / NOTES).glob("*"):
        starter = labelled(folder.name)
        if starter is None or starter.gone:
            ended += end_noted(folder)
    return ended
