"""Raw files read ahead on all processors: by threads, or by processes if there are many files."""

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
F = TypeVar("F")

READERS = len(os.sched_getaffinity(0))
"""Number of CPUs that this process may use; a scheduler may restrict them."""
PROCESSES = min(READERS, 8)
"""Each process loads torch and the task's code; eight are faster than the one process that writes the samples."""
GROUP = 8
"""Files per task of a thread: for single small files, the hand-over costs more than reading."""
GROUP_OF_PROCESS = 32
"""Files per task of a process, whose results are copied twice."""
MANY = 20_000
"""Number of files from which processes are used: Python's threads read small files one at a time, and processes
take seconds to start. docs/profile.md has the throughput of both."""


@dataclass(frozen=True)
class Readers:
    """An executor for readers, their number, and the number of files in each task."""

    executor: Executor
    number: int
    group: int


@contextmanager
def readers(files: int) -> Iterator[Readers]:
    """Yield readers for a number of files; they end with the block, at once if it raises."""
    if files < MANY:
        with ThreadPoolExecutor(READERS) as threads:
            yield Readers(threads, READERS, GROUP)
        return
    before = set(multiprocessing.active_children())
    # Not forked, as locks held by this process's threads would stay locked in the copy.
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        try:
            yield Readers(pool, PROCESSES, GROUP_OF_PROCESS)
        except BaseException:
            for process in set(multiprocessing.active_children()) - before:
                process.kill()  # otherwise the pool would finish its pending tasks
            raise


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives Ctrl-C, too, and ends this process
    warnings.simplefilter("ignore")  # problems that matter become rejections
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent ends, even if it is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a child"
    parent.join()
    os._exit(1)


def ahead(
    pool: Readers, read: Callable[[F], T], unusable: type[Exception], files: Sequence[F]
) -> Iterator[tuple[F, T | str]]:
    """Yield each file with the result of `read`, in order, while further files are being read.

    Args:
        pool: The readers.
        read: A module-level function, or a partial of one.
        unusable: An exception of `read` whose message is yielded in place of a result.
        files: The arguments of `read`: paths, or what else stands for files.

    Raises:
        PedigreeError: a reader process died.
    """
    waiting: deque[Future[list[tuple[F, T | str]]]] = deque()
    group = max(1, min(pool.group, -(-len(files) // pool.number)))  # spreads a few files over all readers
    try:
        for start in range(0, len(files), group):
            waiting.append(pool.executor.submit(_group, read, unusable, files[start : start + group]))
            if len(waiting) > pool.number + 1:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        if error.__cause__ is not None:  # a task or its result could not be pickled
            raise
        raise PedigreeError(
            "a process that reads the raw files died, perhaps because memory ran out: free some memory, and run "
            "prepare again"
        ) from error


def _group(read: Callable[[F], T], unusable: type[Exception], files: Sequence[F]) -> list[tuple[F, T | str]]:
    outcomes: list[tuple[F, T | str]] = []
    for file in files:
        try:
            outcomes.append((file, read(file)))
        except unusable as reason:
            outcomes.append((file, str(reason)))
    return outcomes
