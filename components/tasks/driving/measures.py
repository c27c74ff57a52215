"""How well a drive went."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components.tasks.driving.road import SPEED, Floats, Road, X, Y, gaps, lane_of, off_road

LONGEST = 10.0
"""Largest time to collision in seconds: what is farther away says nothing."""
CLOSING = 0.1
"""m/s at which two cars do not come closer yet."""


class Driven(NamedTuple):
    """A drive that has ended."""

    cars: Floats
    """(T, C, 6), the ego car first."""
    collided: bool


class Measures(NamedTuple):
    """The measures of a drive."""

    collided: float
    off_road: float
    """1 if the ego car was ever in no lane that it may use."""
    progress: float
    """Metres along the road, up to a collision."""
    speed: float
    """Mean in m/s."""
    jerk: float
    """Mean of its absolute value in m/s³."""
    min_ttc: float
    """Least time to a collision with the car ahead if both keep their speeds, in seconds, at most `LONGEST`."""


def times_to_collision(road: Road, cars: Floats) -> Floats:
    """Return the seconds until each frame's ego car hits the next car if both keep their speeds, (T,).

    Args:
        road: The road.
        cars: The cars of each frame, (T, C, 6).
    """
    ego = cars[:, 0]
    gap, faster = gaps(road, cars, lane_of(road, ego[:, X], ego[:, Y]))
    closing = -faster[:, 0] > CLOSING
    times = np.where(closing, np.maximum(gap[:, 0], 0) / np.where(closing, -faster[:, 0], 1), LONGEST)
    return np.minimum(times, LONGEST)


def measured(road: Road, driven: Driven, hertz: int) -> Measures:
    """Measure a drive with `hertz` frames a second."""
    cars, ego = driven.cars, driven.cars[:, 0]
    jerk = np.abs(np.diff(ego[:, SPEED], 2)) * hertz**2
    return Measures(
        float(driven.collided),
        float(off_road(road, ego[:, X], ego[:, Y]).any()),
        float(ego[-1, X] - ego[0, X]),
        float(ego[:, SPEED].mean()),
        float(jerk.mean()) if len(jerk) else 0.0,
        0.0 if driven.collided else float(times_to_collision(road, cars).min()),
    )


def table(road: Road, drives: Sequence[Driven], hertz: int) -> Floats:
    """Return the measures of drives, (N, 6), in the order of `Measures`."""
    return np.array([measured(road, each, hertz) for each in drives])
