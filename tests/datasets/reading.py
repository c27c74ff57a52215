"""What the readers of test_readers.py run: a process that starts loads this module alone, and no torch."""

import os
import time
from pathlib import Path


def half(file: str) -> tuple[int, int]:
    """Return half of a number, and who halved it."""
    if int(file) % 2:
        raise ValueError(f"{file} is odd")
    return int(file) // 2, os.getpid()


def dies(file: str) -> None:
    """End the process."""
    os._exit(9)


def slow(folder: str) -> None:
    """Leave a file with this process's number, and take long."""
    (Path(folder) / f"{os.getpid()}").touch()
    time.sleep(60)
