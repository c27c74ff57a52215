"""The simulated drives."""

import logging
import subprocess
import sys
from pathlib import Path

from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tasks.driving.closed_loop import expect_simulator

log = logging.getLogger("pedigree.data")

SECONDS, TRAIN, TEST = 20, 60, 100
"""Length of a drive, and numbers of drives for training and validation, and for testing."""


def highway(folder: Path) -> None:
    """Write drives on a highway of three lanes as `simulator.main` does, in a process of its own.

    Raises:
        PedigreeError: the simulator is not installed or fails.
    """
    expect_simulator("makes the embedded drives")
    script = str(Path(__file__).with_name("simulator.py"))
    command = [sys.executable, "-P", script, str(folder), "highway", *map(str, (SECONDS, TRAIN, TEST))]
    progress = Progress(log)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout, "it is a pipe"
        assert process.stderr, "it is a pipe"
        try:
            for line in process.stdout:
                progress.say(line.strip())
            said = process.stderr.read().strip().splitlines()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        reason = (said or [f"exit status {process.returncode}"])[-1]
        raise PedigreeError(f"highway-env could not simulate the drives ({reason}): reinstall highway-env")
