"""The road as lanes, the cars on it, and what the ego car knows of them: the features of the network.

A car is a row of `STATE`. x runs along the road, in metres, and y to the right; lane 0 is the leftmost. In an array
of cars the ego car is the first, and a car that is not there is NaN.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STATE = ("x", "y", "heading", "speed", "length", "width")
"""Of a car: its centre in metres, radians to the right of the x axis, m/s, metres."""
X, Y, HEADING, SPEED, LENGTH, WIDTH = range(6)
SIGHT = 100.0
"""Metres ahead and behind within which cars are seen."""
CLOSE = 10.0
"""Metres over which the feature that grows as a car comes near falls to 1/e."""
OVERLAP = 1.0
"""Metres beside a lane in which the centre of a car counts as in it, too: a car that changes lanes is in both."""
PASSES = 10.0
"""m/s of difference in speed that is 1 in the features."""
FAST = 30.0
"""m/s of the ego car that are 1 in the features."""
FEATURES = (
    "speed",
    "offset",
    "speed to the side",
    *(
        f"{side} {name}"
        for side in ("left", "own", "right")
        for name in (
            "usable",
            *(f"{place} {what}" for place in ("front", "rear") for what in ("car", "gap", "nearness", "speed")),
        )
    ),
)


class Lane(BaseModel):
    """A lane."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    points: tuple[tuple[float, float], ...] = Field(min_length=2, description="(x, y) of the centre; x rises")
    width: float = Field(gt=0, le=100, description="In metres")
    closed: bool = Field(default=False, description="Whether the ego car must not use it, as a ramp of others")

    @model_validator(mode="after")
    def _leads_forward(self) -> Self:
        if any(after[0] <= before[0] for before, after in zip(self.points, self.points[1:], strict=False)):
            raise ValueError("x of its points must rise")
        return self


Road = tuple[Lane, ...]
"""Lanes from left to right."""


def centres(road: Road, x: Floats) -> tuple[Floats, Floats]:
    """Return y of each lane's centre and its direction in radians, both (..., L); NaN where a lane is not there."""
    found, headings = [], []
    for lane in road:
        at, y = np.array(lane.points).T
        part = np.clip(np.searchsorted(at, x, side="right") - 1, 0, len(at) - 2)
        slope = np.diff(y) / np.diff(at)
        inside = (x >= at[0]) & (x <= at[-1])
        found.append(np.where(inside, y[part] + slope[part] * (x - at[part]), np.nan))
        headings.append(np.where(inside, np.arctan(slope)[part], np.nan))
    return np.stack(found, -1), np.stack(headings, -1)


def usable(road: Road, x: Floats) -> NDArray[np.bool_]:
    """Return whether the ego car may use each lane at x, (..., L)."""
    free: NDArray[np.bool_] = ~np.isnan(centres(road, x)[0]) & ~np.array([lane.closed for lane in road])
    return free


def lane_of(road: Road, x: Floats, y: Floats) -> Ints:
    """Return the usable lane whose centre is nearest; -1 where there is none."""
    distance = np.abs(centres(road, x)[0] - y[..., None])
    distance = np.where(usable(road, x), distance, np.inf)
    nearest: Ints = np.where(np.isfinite(distance).any(-1), distance.argmin(-1), -1)
    return nearest


def off_road(road: Road, x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Return whether a point is in no usable lane."""
    inside = np.abs(centres(road, x)[0] - y[..., None]) <= np.array([lane.width / 2 for lane in road])
    return np.asarray(~(inside & usable(road, x)).any(-1))


def gaps(road: Road, cars: Floats, lane: Ints) -> tuple[Floats, Floats]:
    """Return the gap to the next car ahead and behind in a lane, and how much faster each is than the ego car.

    Args:
        road: The road.
        cars: Cars (N, C, 6).
        lane: A lane for each of the N scenes, or -1.

    Returns:
        Gaps from bumper to bumper in metres, infinite if there is no car, and speeds in m/s, 0 then; both (N, 2).
    """
    count = np.arange(len(cars))
    x, y, speed = cars[..., X], cars[..., Y], cars[..., SPEED]
    offset = y - np.take_along_axis(centres(road, x)[0], np.maximum(lane, 0)[:, None, None], -1)[..., 0]
    widths = np.array([each.width for each in road])[np.maximum(lane, 0)]
    with np.errstate(invalid="ignore"):
        there = (np.abs(offset) <= widths[:, None] / 2 + OVERLAP) & (lane >= 0)[:, None]
    there[:, 0] = False
    ahead = x - x[:, :1]  # (N, C)
    found, faster = np.full((len(cars), 2), np.inf), np.zeros((len(cars), 2))
    for place, own in enumerate((there & (ahead >= 0), there & (ahead < 0))):
        gap = np.where(own, np.abs(ahead) - (cars[..., LENGTH] + cars[:, :1, LENGTH]) / 2, np.inf)
        nearest = gap.argmin(1)
        found[:, place] = gap[count, nearest]
        known = np.isfinite(found[:, place])
        faster[:, place] = np.where(known, speed[count, nearest] - speed[:, 0], 0.0)
    return found, faster


def features(road: Road, cars: Floats) -> NDArray[np.float32]:
    """Return `FEATURES`, float32 (N, F), of cars (N, C, 6); for each ego car there must be a usable lane."""
    ego = cars[:, 0]
    own = lane_of(road, ego[:, X], ego[:, Y])
    lanes, headings = centres(road, ego[:, X])
    free = usable(road, ego[:, X])
    index = np.arange(len(cars))
    columns = [
        ego[:, SPEED] / FAST,
        (ego[:, Y] - lanes[index, own]) / (road[0].width / 2),
        (ego[:, HEADING] - headings[index, own]) * ego[:, SPEED],
    ]
    for side in (-1, 0, 1):
        lane = own + side
        lane = np.where((lane >= 0) & (lane < len(road)), lane, -1)
        columns.append(np.where(lane >= 0, free[index, lane], 0.0))
        gap, faster = gaps(road, cars, lane)
        for place in (0, 1):
            near = np.clip(gap[:, place], -CLOSE, SIGHT)
            seen = gap[:, place] < SIGHT
            columns += [
                seen.astype(float),
                near / SIGHT,
                np.where(seen, np.exp(-near / CLOSE), 0.0),
                np.where(seen, faster[:, place] / PASSES, 0.0),
            ]
    found: NDArray[np.float32] = np.stack(columns, -1).astype(np.float32)
    return found
