"""Files read ahead of whoever writes them, on all processors: by threads, or by processes where there are many."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from components.errors import PedigreeError

T = TypeVar("T")

READERS = len(os.sched_getaffinity(0))
"""The processors that this process may use, which are not all where a scheduler deals them out."""
PROCESSES = min(READERS, 8)
"""Each holds torch and the task's code; that many are ahead of the one process that writes what they read."""
GROUP = 8
"""Files that a thread reads in one go: one by one, handing over small samples costs more than reading them."""
GROUP_OF_PROCESS = 32
"""As many for a process, whose answers are copied twice."""
MANY = 20_000
"""Files from which on processes read them: Python's threads read small files one at a time, and processes take
seconds to start. docs/profile.md has what each reads in a second."""


@dataclass(frozen=True)
class Readers:
    """What reads, how many of them, and how many files each takes in one go."""

    pool: Executor
    number: int
    group: int


@contextmanager
def readers(files: int) -> Iterator[Readers]:
    """Give what reads so many files; whatever ends the block early ends it, too."""
    if files < MANY:
        with ThreadPoolExecutor(READERS) as threads:
            yield Readers(threads, READERS, GROUP)
        return
    before = set(multiprocessing.active_children())
    # Not forked, for the threads of this process would leave their locks taken in the copy.
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        try:
            yield Readers(pool, PROCESSES, GROUP_OF_PROCESS)
        except BaseException:
            for process in set(multiprocessing.active_children()) - before:
                process.kill()  # else the pool would wait for what was asked of it
            raise


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches whoever waits for us, and ends us
    warnings.simplefilter("ignore")  # what matters of a file becomes a refusal
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """End when the process that reads are for is gone, which a killed one cannot ask for."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a child"
    parent.join()
    os._exit(1)


def ahead(
    by: Readers, read: Callable[[str], T], unusable: type[Exception], files: Sequence[str]
) -> Iterator[tuple[str, T | str]]:
    """Yield each file with what `read` makes of it, in order, while the next are being read.

    Args:
        by: Whoever reads.
        read: A module-level function, or a partial of one.
        unusable: Where `read` raises it, its text stands in the place of what was read.
        files: What `read` takes.

    Raises:
        PedigreeError: a process that reads was ended.
    """
    waiting: deque[Future[list[tuple[str, T | str]]]] = deque()
    group = max(1, min(by.group, -(-len(files) // by.number)))  # of few files each reader has some
    try:
        for start in range(0, len(files), group):
            waiting.append(by.pool.submit(_group, read, unusable, files[start : start + group]))
            if len(waiting) > by.number + 1:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        if error.__cause__ is not None:  # what it could not begin with, or tell of
            raise
        raise PedigreeError(
            "a process that reads the raw files was ended, perhaps because memory ran out: free some, and prepare "
            "again"
        ) from error


def _group(read: Callable[[str], T], unusable: type[Exception], files: Sequence[str]) -> list[tuple[str, T | str]]:
    outcomes: list[tuple[str, T | str]] = []
    for file in files:
        try:
            outcomes.append((file, read(file)))
        except unusable as reason:
            outcomes.append((file, str(reason)))
    return outcomes
