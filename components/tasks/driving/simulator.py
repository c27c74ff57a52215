"""python -P components/tasks/driving/simulator.py FOLDER ENVIRONMENT SECONDS TRAIN TEST: simulated drives.

highway-env (MIT, https://github.com/Farama-Foundation/HighwayEnv) simulates cars that follow the Intelligent Driver
Model (Treiber et al. 2000) and change lanes by MOBIL (Kesting et al. 2007). The drives of one such car are recorded
as people log them: tracks as CSV, and scenario.json about the road. This file imports nothing of the project, so
that it starts quickly.
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # or it greets on stdout
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import numpy as np
from highway_env.envs.highway_env import HighwayEnvFast  # type: ignore[import-untyped]
from highway_env.envs.merge_env import ConnectedLaneMergeEnv  # type: ignore[import-untyped]
from highway_env.road.lane import AbstractLane  # type: ignore[import-untyped]
from highway_env.vehicle.behavior import IDMVehicle  # type: ignore[import-untyped]
from highway_env.vehicle.controller import ControlledVehicle  # type: ignore[import-untyped]
from numpy.typing import NDArray

HERTZ = 5
"""Frames a second of the recordings."""
SPEED_LIMIT = 30.0
"""Speed in m/s that the ego car of the recordings wants."""
Environment = Literal["highway", "merge"]
Driver = Literal["expert", "idm", "idle", "policy"]
"""Who drives the ego car: IDM with MOBIL, IDM in one lane, nobody, or whoever calls `Simulation.step`."""
Floats = NDArray[np.float64]
STATE = ("x", "y", "heading", "speed", "length", "width")
"""Of a car: its centre in metres, y to the right; radians; m/s; metres."""
COLUMNS = ("frame", "id", *STATE, "ego", "disturbed")
DECIMALS = 3
SIMULATED = "SIMULATED.txt"
NOTICE = """\
Nobody drove here. highway-env 1.12.1 (MIT, https://github.com/Farama-Foundation/HighwayEnv) simulated these cars:
they keep their distance by the Intelligent Driver Model and change lanes by MOBIL, and so does the ego car. Every
second drive for training is disturbed: at random times the ego car is shifted, turned, and made faster or slower.
How well a network drives in simulated traffic does not show how it would drive on a road.
"""
FIRST_TEST = 1_000_000
"""The first seed of a drive for testing; those for training begin with 0."""
CARS = 15
"""Other cars on the highway."""
DISTURBED_EVERY = (2.0, 4.0)
"""Seconds between two disturbances of a disturbed drive."""


def simulated(environment: Environment) -> Any:
    """Return an environment of highway-env, to be reset before each drive."""
    if environment == "highway":
        return HighwayEnvFast({"lanes_count": 3, "vehicles_count": CARS})
    return ConnectedLaneMergeEnv()


class _Steered(ControlledVehicle):  # type: ignore[misc]
    """An ego car that others control from outside; its target lane is seen by other cars, like an indicator."""

    def act(self, action: object = None) -> None:
        """Leave the acceleration and the steering as they were set."""


class Simulation:
    """One drive. The first car is the ego car."""

    def __init__(self, environment: Environment, seed: int, driver: Driver, hertz: int = HERTZ) -> None:
        env = simulated(environment)
        env.reset(seed=seed)
        self._road, self._seconds = env.road, 1 / hertz
        ego = self._road.vehicles[0]
        if driver in ("expert", "idm"):
            self._ego = IDMVehicle.create_from(ego)
            self._ego.target_speed = SPEED_LIMIT
            self._ego.enable_lane_change = driver == "expert"
        else:
            self._ego = _Steered.create_from(ego)
        self._ego.check_collisions = True
        self._road.vehicles[0] = self._ego

    @property
    def crashed(self) -> bool:
        """Whether the ego car has collided."""
        return bool(self._ego.crashed)

    def cars(self) -> Floats:
        """Return the `STATE` of each car, (C, 6)."""
        return np.array(
            [[*car.position, car.heading, car.speed, car.LENGTH, car.WIDTH] for car in self._road.vehicles]
        )

    def step(self, acceleration: float = 0.0, steering: float = 0.0, lane: int | None = None) -> None:
        """Simulate one frame.

        Args:
            acceleration: That of a policy's ego car, in m/s²; for other drivers, as the rest, unused.
            steering: The angle of its front wheels, in radians.
            lane: The lane to which it indicates to change.
        """
        if isinstance(self._ego, _Steered):
            self._ego.action = {"acceleration": acceleration, "steering": steering}
            if lane is not None and (index := self._index(lane)) is not None:
                self._ego.target_lane_index = index
        self._road.act()
        self._road.step(self._seconds)

    def _index(self, lane: int) -> tuple[str, str, int] | None:
        """Return highway-env's name of a lane where the ego car is, if it has one there."""
        start, end, _ = self._ego.lane_index
        return (start, end, lane) if lane < len(self._road.network.graph[start][end]) else None

    def disturb(self, drawn: random.Random) -> None:
        """Shift, turn, and speed up or slow down the ego car at once."""
        self._ego.position = self._ego.position + np.array([0.0, drawn.uniform(-1.0, 1.0)])
        self._ego.heading += drawn.uniform(-0.06, 0.06)
        self._ego.speed = max(5.0, self._ego.speed + drawn.uniform(-5.0, 4.0))


def lanes_of(environment: Environment) -> list[dict[str, Any]]:
    """Return the lanes from left to right: points (x, y) of the centre, width, and if it is closed to the ego."""
    network = simulated(environment).road.network
    if environment == "highway":
        own = [[network.get_lane(("0", "1", number))] for number in range(3)]
    else:
        parts = [("a", "b"), ("b", "c"), ("c", "d")]
        own = [[network.get_lane((*part, number)) for part in parts] for number in range(2)]
        own.append([network.get_lane(name) for name in (("j", "k", 0), ("k", "b", 0), ("b", "c", 2))])
    return [
        {"points": _points(parts), "width": float(parts[0].width_at(0)), "closed": bool(parts[0].forbidden)}
        for parts in own
    ]


def _points(parts: list[AbstractLane]) -> list[list[float]]:
    """Return points of a lane's centre, closer together where it is not straight."""
    found: list[list[float]] = []
    for part in parts:
        count = 2 if part.heading_at(0) == part.heading_at(part.length / 2) else 21
        for place in np.linspace(0, part.length, count):
            point = [round(float(value), DECIMALS) for value in part.position(place, 0)]
            if not found or point[0] > found[-1][0]:
                found.append(point)
    return found


Frames = list[tuple[Floats, bool]]
"""The cars of each frame, (C, 6), and whether the ego car was disturbed just before it."""


def recorded(environment: Environment, seed: int, seconds: float, disturbed: bool) -> tuple[Frames, bool]:
    """Return an expert's drive, up to its collision if there is one, and whether there is."""
    drive, drawn = Simulation(environment, seed, "expert"), random.Random(seed)  # noqa: S311 (not for cryptography)
    frames, wait = [(drive.cars(), False)], drawn.uniform(*DISTURBED_EVERY)
    for _ in range(round(seconds * HERTZ)):
        drive.step()
        wait -= 1 / HERTZ
        due = disturbed and wait <= 0
        if due:
            drive.disturb(drawn)
            wait = drawn.uniform(*DISTURBED_EVERY)
        frames.append((drive.cars(), due))
        if drive.crashed:
            break
    return frames, drive.crashed


def lines(frames: Frames) -> Iterator[str]:
    """Yield the rows of a drive's tracks, with the header."""
    yield ",".join(COLUMNS)
    for number, (cars, disturbed) in enumerate(frames):
        for car, state in enumerate(cars.round(DECIMALS).tolist()):
            ego = car == 0
            # Adding zero turns -0.0 into 0.0.
            values = [f"{value + 0.0:g}" if value == int(value) else f"{value:.{DECIMALS}f}" for value in state]
            yield f"{number},{car},{','.join(values)},{int(ego)},{int(ego and disturbed)}"


def main(folder: Path, environment: Environment, seconds: float, train: int, test: int) -> None:
    """Write scenario.json, <split>/<seed>.csv for `train` and `test` drives, and a notice to `SIMULATED`.

    Seeds are consecutive, and those of test are others than those of train. Every second drive of train is
    disturbed. A drive in which the expert collides is left out of train, as it is no example; scenario.json names
    those of test. Lines about the progress go to stdout.
    """
    seeds: dict[str, int] = {}
    collided: list[str] = []
    for split, count, start in (("train", train, 0), ("test", test, FIRST_TEST)):
        (folder / split).mkdir(parents=True)
        for seed in range(start, start + count):
            frames, crashed = recorded(environment, seed, seconds, split == "train" and seed % 2 == 1)
            file = f"{split}/{seed}.csv"
            if crashed and split == "train":
                continue
            if crashed:
                collided.append(file)
            (folder / file).write_text("\n".join(lines(frames)) + "\n", encoding="utf-8", newline="\n")
            seeds[file] = seed
            print(f"{split}: {seed - start + 1} of {count} drives simulated", flush=True)
    scenario = {
        "simulator": f"highway-env {version('highway-env')}",
        "environment": environment,
        "hertz": HERTZ,
        "seconds": seconds,
        "lanes": lanes_of(environment),
        "seeds": seeds,
        "collided": collided,
    }
    (folder / "scenario.json").write_text(json.dumps(scenario, indent=1) + "\n", encoding="utf-8", newline="\n")
    (folder / SIMULATED).write_text(NOTICE, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), cast(Environment, sys.argv[2]), float(sys.argv[3]), *map(int, sys.argv[4:]))
