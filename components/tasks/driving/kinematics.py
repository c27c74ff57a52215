"""How a car follows a lane, and where it will be: the plan of a served version, and the steering in closed loop.

The car is a bicycle model whose wheels turn at once, steered by a cascade of two proportional controllers. Its
equations and gains are those of highway-env (https://highway-env.farama.org/dynamics/vehicle/controller/), so that
a plan shows what a simulated car does.
"""

import numpy as np

from components.tasks.driving.road import HEADING, LENGTH, SPEED, Floats, Ints, Road, X, Y, centres

LATERAL, TURN = 1 / 0.6, 1 / 0.2
"""Gains in 1/s: of the offset from the lane's centre, and of the heading."""
SHARPEST = np.pi / 3
"""Largest angle of the front wheels."""
STEEPEST = np.pi / 4
"""Largest angle to the lane."""
LOOK = 0.1
"""Seconds ahead at which the lane's direction counts."""
CRAWL = 1e-2
"""m/s that stand for a car that does not move, which has no direction of motion."""


def steering(road: Road, ego: Floats, lane: Ints) -> Floats:
    """Return the angle of the front wheels that leads to the centre of a lane, in radians, (N,).

    Args:
        road: The road.
        ego: Cars (N, 6).
        lane: The lane of each, which must be there.
    """
    index, speed = np.arange(len(ego)), np.maximum(ego[:, SPEED], CRAWL)
    centre = centres(road, ego[:, X])[0][index, lane]
    ahead = centres(road, ego[:, X] + speed * LOOK)[1][index, lane]
    direction = np.where(np.isnan(ahead), 0.0, ahead)
    wanted = direction + np.clip(
        np.arcsin(np.clip(LATERAL * (centre - ego[:, Y]) / speed, -1, 1)), -STEEPEST, STEEPEST
    )
    turn = TURN * np.angle(np.exp(1j * (wanted - ego[:, HEADING])))
    slip = np.arcsin(np.clip(ego[:, LENGTH] / 2 / speed * turn, -1, 1))
    angle: Floats = np.clip(np.arctan(2 * np.tan(slip)), -SHARPEST, SHARPEST)
    return angle


def moved(cars: Floats, acceleration: Floats, angle: Floats, seconds: float) -> Floats:
    """Return cars (N, 6) some time later; they do not drive backwards.

    Args:
        cars: Cars (N, 6).
        acceleration: In m/s², (N,).
        angle: Of the front wheels in radians, (N,).
        seconds: The time, short enough for the angle to hold.
    """
    later = cars.copy()
    slip = np.arctan(np.tan(angle) / 2)
    later[:, X] += cars[:, SPEED] * np.cos(cars[:, HEADING] + slip) * seconds
    later[:, Y] += cars[:, SPEED] * np.sin(cars[:, HEADING] + slip) * seconds
    later[:, HEADING] += cars[:, SPEED] * np.sin(slip) / (cars[:, LENGTH] / 2) * seconds
    later[:, SPEED] = np.maximum(cars[:, SPEED] + acceleration * seconds, 0.0)
    return later
