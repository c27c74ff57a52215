"""Processes, identified by PID and start time so that a reused PID is never mistaken for the old process."""

import hashlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field


class Process(BaseModel):
    """The identity of one process."""

    model_config = ConfigDict(frozen=True)

    machine: str = Field(default="", description="Where its PID is valid; empty in records of older versions")
    pid: int
    born: str

    @property
    def label(self) -> str:
        """The identity as part of a file name."""
        return f"{self.machine}-{self.pid}-{self.born}"

    @property
    def here(self) -> bool:
        """Whether its PID means the same process to this one, which can then look at it and end it."""
        return self.machine == _machine()

    @property
    def gone(self) -> bool:
        """Whether it has ended; False for processes elsewhere, which cannot be looked at from here."""
        return self.here and (not self.born or self.born != _born(self.pid))


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with `more` added and the programs beside this Python first in PATH.

    `python` in dvc.yaml is then the Python that runs this process, even if its environment is not activated.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path} | more


def this() -> Process:
    """Return the present process."""
    return of(os.getpid())


def of(pid: int) -> Process:
    """Return the process that has this PID now."""
    return Process(machine=_machine(), pid=pid, born=_born(pid))


def labelled(label: str) -> Process | None:
    """Return the process of a `label`, or None if the text is not one."""
    machine, *rest = label.rsplit("-", 2)
    return (
        Process(machine=machine, pid=int(rest[0]), born=rest[1]) if len(rest) == 2 and rest[0].isdigit() else None
    )


@cache
def _machine() -> str:
    """Return a name of the running kernel and of this process's PID namespace; empty where there are none.

    A host's name would not do: it can change while processes live, and a container's successor has another one.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        space = Path("/proc/self/ns/pid").readlink()
        return hashlib.sha256(f"{boot}{space}".encode()).hexdigest()[:12]
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Return a process's start time, on a clock that cannot be set if possible, or an empty string if it is gone.

    Linux counts from boot (proc(5), `starttime`); psutil's creation time moves with the wall clock.
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
    """Terminate processes, and kill those still alive after `seconds`; return those that were running."""
    running = [process for process in processes if process.here and not process.gone]
    family: list[psutil.Process] = []
    for process in running:
        with suppress(psutil.NoSuchProcess):
            family.append(psutil.Process(process.pid))
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.terminate()
    _, alive = psutil.wait_procs(family, timeout=seconds)
    for each in alive:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(alive, timeout=8)  # the kernel takes longer for a process that writes to a disk
    return running


def tree(pid: int) -> list[Process]:
    """Return a process and all its descendants, the oldest first."""
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
"""Environment that makes glibc (mallopt(3)) keep freed memory for the next update or prediction.

By default glibc returns activations to the kernel each time, which hands them out again page by page, zeroed. The
arena of a thread does so regardless of thresholds, and Ray's workers train in a thread: docs/profile.md.
"""


def keeping_memory() -> dict[str, str]:
    """Return the environment of a process that computes: `MEMORY`, except for values that the user has set."""
    return {name: os.environ.get(name, value) for name, value in MEMORY.items()}
