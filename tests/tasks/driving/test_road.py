"""Lanes, the cars in them, the features of a scene, and the steering that leads to a lane."""

import numpy as np
import pytest
from pydantic import ValidationError

from components.tasks.driving import kinematics, measures, road
from components.tasks.driving.measures import Driven
from components.tasks.driving.road import FEATURES, Lane

HIGHWAY = tuple(Lane(points=((0.0, 4.0 * number), (1000.0, 4.0 * number)), width=4.0) for number in range(3))
RAMP = (*HIGHWAY[:2], Lane(points=((0.0, 20.0), (100.0, 20.0), (200.0, 8.0), (300.0, 8.0)), width=4.0, closed=True))


def cars(*states: tuple[float, float, float]) -> np.ndarray:
    """Return one scene of cars of 5 x 2 m at (x, y) with a speed, (1, C, 6)."""
    return np.array([[[x, y, 0.0, speed, 5.0, 2.0] for x, y, speed in states]])


def seen(name: str, scene: np.ndarray, lanes: road.Road = HIGHWAY) -> float:
    """Return one of the features of a scene."""
    return float(road.features(lanes, scene)[0, FEATURES.index(name)])


def test_a_lane_has_a_centre_and_a_direction_only_where_it_is():
    centre, direction = road.centres(RAMP, np.array([50.0, 150.0, 400.0]))
    assert centre[:, 2].tolist() == pytest.approx([20.0, 14.0, np.nan], nan_ok=True)
    assert direction[1, 2] == pytest.approx(np.arctan(-0.12))


def test_a_point_is_in_the_nearest_lane_that_is_not_closed_and_off_the_road_beside_all():
    x, y = np.array([150.0, 150.0, 150.0]), np.array([-1.0, 5.0, 14.0])
    assert road.lane_of(RAMP, x, y).tolist() == [0, 1, 1]
    assert road.off_road(RAMP, x, y).tolist() == [False, False, True]


def test_the_features_are_the_gaps_and_speeds_of_the_nearest_cars_in_three_lanes():
    scene = cars((100, 4, 30), (125, 4, 20), (160, 4, 10), (90, 0, 35), (103, 8, 30))
    assert seen("own front car", scene) == 1
    assert seen("own front gap", scene) == pytest.approx(0.2)
    assert seen("own front speed", scene) == pytest.approx(-1)
    assert seen("own rear car", scene) == 0
    assert seen("left rear gap", scene) == pytest.approx(0.05)
    assert seen("left rear speed", scene) == pytest.approx(0.5)
    assert seen("right front gap", scene) == pytest.approx(-0.02)
    assert seen("left usable", scene) == seen("right usable", scene) == 1


def test_a_car_between_two_lanes_is_seen_in_both_and_one_beyond_sight_in_none():
    scene = cars((100, 4, 30), (130, 2, 20), (300, 8, 20))
    assert seen("own front gap", scene) == seen("left front gap", scene) == pytest.approx(0.25)
    assert seen("right front car", scene) == 0


def test_there_is_no_lane_to_change_to_beside_the_outermost_and_none_that_is_closed():
    assert seen("left usable", cars((100, 0, 30))) == 0
    beside_the_ramp = cars((250, 4, 30), (280, 8, 20))
    assert seen("right usable", beside_the_ramp, RAMP) == 0
    assert seen("right front gap", beside_the_ramp, RAMP) == pytest.approx(0.25)


def test_a_scene_in_which_cars_are_missing_looks_as_without_them():
    scene = cars((100, 4, 30), (125, 4, 20))
    padded = np.concatenate([scene, np.full((1, 3, 6), np.nan)], axis=1)
    assert np.array_equal(road.features(HIGHWAY, scene), road.features(HIGHWAY, padded))


def test_points_of_a_lane_must_lead_forward():
    with pytest.raises(ValidationError, match="x of its points must rise"):
        Lane(points=((0.0, 0.0), (0.0, 1.0)), width=4.0)


def test_the_steering_leads_to_the_centre_of_the_lane_and_stays_there():
    ego = cars((100, 4, 25))[:, 0]
    for _ in range(25):
        angle = kinematics.steering(HIGHWAY, ego, np.array([2]))
        ego = kinematics.moved(ego, np.zeros(1), angle, 0.2)
    assert ego[0, road.Y] == pytest.approx(8, abs=0.02)
    assert ego[0, road.HEADING] == pytest.approx(0, abs=0.01)
    assert ego[0, road.X] == pytest.approx(100 + 25 * 5, abs=2)


def test_a_car_that_brakes_stops_and_does_not_drive_backwards():
    ego = cars((100, 4, 1))[:, 0]
    for _ in range(5):
        ego = kinematics.moved(ego, np.array([-6.0]), np.zeros(1), 0.2)
    assert ego[0, road.SPEED] == 0
    assert kinematics.steering(HIGHWAY, ego, np.array([2])).tolist() == pytest.approx([0.0], abs=np.pi / 3)


def test_the_measures_of_a_drive_are_those_of_its_ego_car():
    speeds = [20.0, 21.0, 23.0, 23.0]
    frames = [cars((100.0 + 4 * i, 4, speed), (150, 4, 13))[0] for i, speed in enumerate(speeds)]
    found = measures.measured(HIGHWAY, Driven(np.stack(frames), False), 5)
    assert found.progress == pytest.approx(12)
    assert found.speed == pytest.approx(21.75)
    assert found.jerk == pytest.approx((25 + 50) / 2)
    assert found.min_ttc == pytest.approx((150 - 112 - 5) / 10)
    assert (found.collided, found.off_road) == (0, 0)


def test_a_collision_and_a_frame_beside_the_road_are_counted():
    frames = np.concatenate([cars((100, 4, 20)), cars((104, 11, 20))])
    found = measures.measured(HIGHWAY, Driven(frames, True), 5)
    assert (found.collided, found.off_road, found.min_ttc) == (1, 1, 0)
