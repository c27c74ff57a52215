"""Processes by number and moment of birth, so that a number that was given again is never taken for the old one."""

import os
import platform
import signal
import threading
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
    psutil.wait_procs(alive, timeout=seconds)
    return there


def tree(pid: int) -> list[Process]:
    """Return a process and all that descend from it, the oldest first."""
    try:
        parent = psutil.Process(pid)
        return [of(each.pid) for each in (parent, *parent.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended, as shells give it."""


@contextmanager
def interruptible(seconds: float = 8) -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, also where a shell had us ignore that one (`pedigree up &`).

    Whatever is not over `seconds` later, and everything at the second time, is ended at once, children included.
    """

    def end_now(*_: object) -> None:
        for child in tree(os.getpid())[1:]:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        os._exit(INTERRUPTED)

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, end_now)
        watchdog = threading.Timer(seconds, end_now)
        watchdog.daemon = True
        watchdog.start()
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)
