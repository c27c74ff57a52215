"""Drives the ego cars of many simulated scenes at once: a policy decides, the simulator answers."""

import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal, NamedTuple

import numpy as np

from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tasks.driving.episodes import Scenario
from components.tasks.driving.measures import Driven
from components.tasks.driving.road import Floats, Ints

SIMULATOR = "highway_env"


class Control(NamedTuple):
    """What N ego cars do until the next frame."""

    acceleration: Floats
    """In m/s², (N,)."""
    angle: Floats
    """Of the front wheels in radians, (N,)."""
    lane: Ints
    """The lane to which each indicates to change, or its own, (N,)."""


Driver = Literal["expert", "idm", "idle"]
"""A driver of the simulator: IDM with MOBIL, IDM in one lane, or nobody."""
Policy = Callable[[Floats], Control]
"""Maps cars (N, C, 6), of which the first is the ego car, to what the ego cars do."""


def expect_simulator(purpose: str) -> None:
    """Check that the simulator is installed.

    Raises:
        PedigreeError: it is not.
    """
    if find_spec(SIMULATOR) is None:
        raise PedigreeError(
            f"highway-env, the simulator that {purpose}, is not installed: install it with `uv pip install "
            "'pedigree[driving]'`"
        )


def drive(scenario: Scenario, seeds: Sequence[int], driver: Policy | Driver, log: logging.Logger) -> list[Driven]:
    """Drive each seed of a scenario until it ends, or the ego car collides.

    Args:
        scenario: The environment and the length of a drive.
        seeds: One for each drive.
        driver: A policy, or a driver of the simulator.
        log: Gets lines about the progress.
    """
    from components.tasks.driving.simulator import Simulation

    own = driver if isinstance(driver, str) else "policy"
    progress, frames = Progress(log), round(scenario.seconds * scenario.hertz)
    drives = [Simulation(scenario.environment, seed, own, scenario.hertz) for seed in seeds]
    tracks = [[each.cars()] for each in drives]
    for frame in range(frames):
        running = [number for number, each in enumerate(drives) if not each.crashed]
        if not running:
            break
        controls: Sequence[tuple[float, float, int | None]] = [(0.0, 0.0, None)] * len(running)
        if not isinstance(driver, str):
            acceleration, angle, lane = driver(_together([tracks[number][-1] for number in running]))
            controls = list(zip(acceleration.tolist(), angle.tolist(), lane.tolist(), strict=True))
        for number, control in zip(running, controls, strict=True):
            drives[number].step(*control)
            tracks[number].append(drives[number].cars())
        now = frame / scenario.hertz
        progress.say(f"{len(seeds):,} drives of the {own}: {now:.0f} of {scenario.seconds:g} seconds simulated")
    return [Driven(np.stack(cars), each.crashed) for cars, each in zip(tracks, drives, strict=True)]


def first_scene(scenario: Scenario, seed: int) -> Floats:
    """Return the cars with which a seed begins, (C, 6)."""
    from components.tasks.driving.simulator import Simulation

    return Simulation(scenario.environment, seed, "idle").cars()


def _together(scenes: Sequence[Floats]) -> Floats:
    """Join scenes of different numbers of cars into (N, C, 6)."""
    most = max(map(len, scenes))
    joined = np.full((len(scenes), most, scenes[0].shape[1]), np.nan)
    for place, cars in enumerate(scenes):
        joined[place, : len(cars)] = cars
    return joined
