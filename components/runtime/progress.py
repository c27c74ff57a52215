"""Lines of progress in a log, for work that takes a moment on some data and an hour on others."""

import logging
import time

QUIET_SECONDS = 5.0
"""Shortest time between two lines; shorter work logs none."""


class Progress:
    """Logs how far work is, at most once in `QUIET_SECONDS`."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said = time.monotonic()

    def say(self, line: str) -> None:
        """Log the line if the last one, or the beginning, is long enough ago."""
        if time.monotonic() - self._said > QUIET_SECONDS:
            self._log.info("%s", line)
            self._said = time.monotonic()
