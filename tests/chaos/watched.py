"""Calls in watched processes, which detect crashes, hangs and growth of memory."""

import multiprocessing
import resource
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

MOST_GROWTH = 3 * 2**30
"""Bytes of address space by which a process may grow after its imports, to protect the machine."""


class Watched(NamedTuple):
    """The outcome of one call."""

    item: Any
    returned: Any
    """What the function returned, or None if it failed."""
    problem: str
    """A traceback, `ended with …` or `over … s`; empty if the call succeeded."""
    seconds: float
    grown: int
    """Growth of the process's memory (RSS) from before the call to its peak, in bytes."""


def watched(
    function: Callable[[Any], Any], items: Sequence[Any], processes: int, limit: float
) -> Iterator[Watched]:
    """Yield the outcome of `function(item)` for each item, in the order of completion.

    Args:
        function: A module-level function, so that other processes find it.
        items: Arguments that can be pickled.
        processes: Number of parallel processes.
        limit: Seconds that one call may take; a process that takes longer is killed and replaced.
    """
    done: Queue[Watched] = Queue()
    lanes = [
        threading.Thread(target=_lane, args=(function, items[start::processes], limit, done), daemon=True)
        for start in range(processes)
    ]
    for lane in lanes:
        lane.start()
    for _ in items:
        yield done.get()
    for lane in lanes:
        lane.join()


def _lane(function: Callable[[Any], Any], items: Sequence[Any], limit: float, done: Queue[Watched]) -> None:
    process, ours = _started(function)
    for item in items:
        ours.send(item)
        began = time.monotonic()
        try:
            if ours.poll(limit):
                done.put(Watched(item, *ours.recv()))
                continue
            problem = f"over {limit:g} s"
            process.kill()
        except EOFError:
            problem = ""
        process.join()
        problem = problem or f"ended with {process.exitcode}"
        done.put(Watched(item, None, problem, time.monotonic() - began, 0))
        process, ours = _started(function)
    ours.send(None)
    process.join()


def _started(function: Callable[[Any], Any]) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == "ready"
    return process, ours


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_GROWTH, size + MOST_GROWTH))
    connection.send("ready")
    for item in iter(connection.recv, None):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before, began = _memory("VmRSS"), time.monotonic()
        returned, problem = None, ""
        try:
            returned = function(item)
        except BaseException:
            problem = traceback.format_exc()
        connection.send((returned, problem, time.monotonic() - began, max(0, _memory("VmHWM") - before)))


def _memory(field: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
