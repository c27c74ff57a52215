"""The simulated drives."""

import logging
import subprocess
import sys
from functools import partial
from pathlib import Path

from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tasks.driving.closed_loop import expect_simulator
from components.tasks.driving.episodes import SIMULATED

log = logging.getLogger("pedigree.data")

NOTICE = """\
Nobody drove here. highway-env 1.12.1 (MIT, https://github.com/Farama-Foundation/HighwayEnv) simulated these cars:
they keep their distance by the Intelligent Driver Model and change lanes by MOBIL, and so does the ego car. Every
second drive for training is disturbed: at random times the ego car is shifted, turned, and made faster or slower.
How well a network drives in simulated traffic does not show how it would drive on a road.
"""
TRAIN, TEST = 60, 100
"""Drives for training and validation, and for testing."""
SECONDS = {"highway": 20, "merge": 12}
"""Length of a drive in each environment."""


def _write(environment: str, folder: Path) -> None:
    """Write `TRAIN` and `TEST` drives as `simulator.main` does, in a process of its own, and SIMULATED.txt.

    Raises:
        PedigreeError: the simulator is not installed or fails.
    """
    expect_simulator(f"makes the drives of {environment}")
    script = str(Path(__file__).with_name("simulator.py"))
    numbers = [str(number) for number in (SECONDS[environment], TRAIN, TEST, 0)]
    progress = Progress(log)
    command = [sys.executable, "-P", script, str(folder), environment, *numbers]
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
    (folder / SIMULATED).write_text(NOTICE, encoding="utf-8")


highway = partial(_write, "highway")
merge = partial(_write, "merge")
