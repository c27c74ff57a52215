"""How a program ends that somebody interrupts. It imports little: `pedigree --help` waits for it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended, as shells give it."""


@contextmanager
def interruptible(seconds: float = 8) -> Iterator[None]:
    """Let SIGTERM, or a terminal that is closed, end the block as Ctrl-C does.

    That one counts also where a shell had us ignore it (`pedigree up &`), and the terminal's end not after `nohup`.

    Whatever is not over `seconds` later, and everything at the second time, is ended at once, children included.
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
