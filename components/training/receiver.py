"""Passes events on until a listener fails, such as for a full disk, and then ends the training with that error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from components.contracts import Event
from components.errors import last_sentence


class Receiver:
    """Calls a listener with each event; after its first error, only remembers that."""

    def __init__(self, listener: Callable[[Event], None]) -> None:
        """Pass events to `listener`."""
        self._listener = listener
        self._error: Exception | None = None

    def receive(self, event: Event) -> None:
        """Pass on an event; never raises."""
        if self._error is None:
            try:
                self._listener(event)
            except Exception as error:
                self._error = error

    def problem(self) -> str:
        """Return the listener's error in a sentence, or an empty string."""
        if self._error is None:
            return ""
        return last_sentence(self._error) or f"{type(self._error).__name__}: {self._error}"

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise the listener's error at the end of the block, in place of the one with which work ended for it."""
        try:
            yield
        except Exception:
            if self._error is not None:
                raise self._error from None
            raise
        if self._error is not None:
            raise self._error
