"""Runs calls in background threads."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_thread(call: Callable[[], T], name: str, daemon: bool = True) -> Future[T]:
    """Start a call in a thread; return a future of its result. The process ends without a daemon's."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=daemon).start()
    return outcome
