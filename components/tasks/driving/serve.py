"""The served policy: the cars of a scene in; an acceleration, a lane and a plan of three seconds out."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import nn

from components import requests
from components.contracts import Manifest, Predict, Rejected, Row, Served
from components.datasets.ingest import Unusable, named
from components.tasks.driving import pictures
from components.tasks.driving.decisions import planned, policy_of
from components.tasks.driving.model import Planner
from components.tasks.driving.params import DrivingParams
from components.tasks.driving.prepare import DrivingFacts
from components.tasks.driving.road import STATE, Floats, X, Y, centres, off_road, usable

CARS = "cars"
MOST = 1000
"""Most cars of a scene."""
PLANNED = 3.0
"""Seconds of a plan."""
TOGETHER = 64
"""Scenes that are answered at once."""


class Car(BaseModel):
    """A car of a request, in the coordinates of the lanes."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    x: float = Field(ge=-1e6, le=1e6)
    y: float = Field(ge=-1e6, le=1e6)
    heading: float = Field(default=0.0, ge=-10, le=10)
    speed: float = Field(ge=0, le=150)
    length: float = Field(default=5.0, gt=0, le=50)
    width: float = Field(default=2.0, gt=0, le=10)
    ego: bool = False


_CARS = TypeAdapter(list[Car])


def served(manifest: Manifest, params: DrivingParams) -> Served:
    """Describe requests and answers."""
    road = DrivingFacts.model_validate(manifest.facts).scenario.lanes
    lane = next(lane for lane in road if not lane.closed)
    x, y = lane.points[0]
    return Served(
        inputs={CARS: "records"},
        outputs={"acceleration": "double", "lane": "long", "plan": "records"},
        example={
            CARS: [
                {"x": x + 50.0, "y": y, "heading": 0.0, "speed": 25.0, "ego": True},
                {"x": x + 75.0, "y": y, "heading": 0.0, "speed": 20.0, "ego": False},
            ]
        },
        requirements=("numpy", "pillow"),
    )


def load_predict(model: nn.Module, manifest: Manifest, params: DrivingParams) -> Predict:
    """Return the function that answers rows of `{"cars": …}`, a list of cars or its JSON."""
    assert isinstance(model, Planner), "from build_model"
    scenario, policy = model.scenario, policy_of(model)

    def read(row: Row) -> Floats:
        cars = cars_of(row.get(CARS))
        at = cars[:1, X], cars[:1, Y]
        if off_road(scenario.lanes, *at)[0]:
            lanes = ", ".join(
                f"{number} at y = {y:g}"
                for number, y in enumerate(centres(scenario.lanes, at[0])[0][0])
                if usable(scenario.lanes, at[0])[0, number]
            )
            raise Unusable(
                f"the ego car at x = {at[0][0]:g}, y = {at[1][0]:g} is in no lane that it may use; lanes there: "
                f"{lanes or 'none'}"
            )
        return cars

    def answer(scenes: list[Floats]) -> list[Row]:
        cars = np.full((len(scenes), max(map(len, scenes)), len(STATE)), np.nan)
        for place, scene in enumerate(scenes):
            cars[place, : len(scene)] = scene
        control, places = planned(policy, scenario.lanes, cars, PLANNED, scenario.hertz)
        return [
            {
                "acceleration": float(acceleration),
                "lane": int(lane),
                "plan": [
                    {"seconds": (number + 1) / scenario.hertz, **dict(zip(STATE[:4], state, strict=True))}
                    for number, state in enumerate(own[:, :4].round(3).tolist())
                ],
            }
            for acceleration, lane, own in zip(control.acceleration, control.lane, places, strict=True)
        ]

    def predict(rows: list[Row], settings: Mapping[str, Any]) -> list[Row | Rejected]:
        return requests.answer_rows(rows, read, answer, "scene", TOGETHER)

    return predict


def cars_of(value: Any) -> Floats:
    """Return the cars of a request, (C, 6), the ego car first.

    Raises:
        Unusable: they are not cars, or there is not one ego car among them.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"the text in the column {CARS} is not JSON ({error})") from None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list):
        raise Unusable(f"expected a list of cars in the column {CARS} and found {named(value)}")
    if len(value) > MOST:
        raise Unusable(f"{len(value):,} cars are more than {MOST:,}; send those near the ego car")
    try:
        cars = _CARS.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        number, *where = first["loc"] or (0,)
        raise Unusable(f"car {number}: {'.'.join(map(str, where)) or 'its fields'}: {first['msg']}") from None
    egos = [number for number, car in enumerate(cars) if car.ego]
    if len(egos) != 1:
        raise Unusable(f"{len(egos)} of its {len(cars)} cars have `ego: true`; mark the one that you drive")
    ordered = [cars[egos[0]], *(car for car in cars if not car.ego)]
    return np.array([[getattr(car, name) for name in STATE] for car in ordered], np.float64)


def draw(row: Row, answer: Row) -> bytes:
    """Draw the cars of a scene from above with the plan, as a PNG."""
    plan = np.array([[place["x"], place["y"]] for place in answer["plan"]])
    return pictures.png(pictures.scene((), cars_of(row[CARS]), plan))
