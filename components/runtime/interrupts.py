"""Handling of interrupts. Imports little, as `pedigree --help` waits for it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

INTERRUPTED = 130
"""Exit code of a program ended by Ctrl-C, as in shells."""


@contextmanager
def interruptible(seconds: float = 8) -> Iterator[None]:
    """Make SIGTERM and a closed terminal (SIGHUP) end the block as Ctrl-C does.

    SIGINT works even if a shell made us ignore it (`pedigree up &`); SIGHUP stays ignored under `nohup`. After
    `seconds`, or on a second signal, the process and all its children are killed.
    """

    def end_now(*_: object) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(INTERRUPTED)

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, end_now)
        watchdog = threading.Timer(seconds, end_now)
        watchdog.daemon = True
        watchdog.start()
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)
