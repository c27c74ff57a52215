"""A network drives seeds that it has not seen; a policy of waypoints collides, and is rejected."""

import logging
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from components.contracts import Outcomes
from components.errors import PedigreeError
from components.stages.evaluate import read_outcomes
from components.tasks.driving import closed_loop, episodes, evaluate, measures, train
from components.tasks.driving.closed_loop import Control
from components.tasks.driving.road import HEADING, LENGTH, SPEED, X, Y, lane_of
from components.trust import gate
from tests.tasks.driving import tiny
from tests.tasks.driving.test_train import network
from tests.tasks.driving.values import values

LOG = logging.getLogger("test")


@pytest.fixture(scope="module")
def chain(chain_of):
    return chain_of("highway")


@pytest.mark.long
def test_the_metrics_of_the_network_stand_beside_those_of_the_other_drivers(chain):
    metrics = chain.evaluated.metrics
    for name in ("collision_rate", "off_road_rate", "progress", "metres", "speed", "jerk", "min_ttc"):
        assert {f"{driver}_{name}" for driver in ("expert", "idm", "idle")} <= metrics.keys()
        assert name in metrics
    assert metrics["expert_progress"] == pytest.approx(1)
    assert metrics["progress_gain_low"] <= metrics["progress_gain"] <= metrics["progress_gain_high"]
    assert metrics["progress_gain"] == pytest.approx(metrics["metres"] - metrics["expert_metres"])


def test_of_a_hundred_drives_without_a_collision_at_most_three_percent_collide():
    assert evaluate._bound(np.zeros(100)) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert evaluate._bound(np.zeros(100)) < 0.03


@pytest.mark.long
def test_a_drive_with_a_collision_or_off_the_road_counts_nothing(chain):
    table = np.array([[0, 0, 40, 20, 0, 1], [1, 0, 40, 20, 0, 1], [0, 1, 40, 20, 0, 1]], float)
    found = evaluate._outcomes(table, chain.prepared)
    score = evaluate.score(chain.prepared.manifest)
    assert found.columns["safe"].tolist() == [found.columns["relative"][0], 0, 0]
    assert score.of(found.columns, np.ones(3)) == pytest.approx(found.columns["relative"][0] / 3)


@pytest.mark.long
def test_each_of_the_worst_drives_has_an_animation_of_all_its_frames(chain):
    outcomes = read_outcomes(chain.evaluated.folder)
    files = sorted((chain.evaluated.folder / "examples").glob("worst_*.gif"))
    assert len(files) == min(evaluate.WORST, len(outcomes.samples))
    with Image.open(files[0]) as animation:
        assert 2 <= animation.n_frames <= tiny.SECONDS * 5 + 1


def scenario_of(folder: Path, seconds: float = tiny.SECONDS, environment: str = "highway") -> episodes.Scenario:
    tiny.write(folder, train=1, test=0, environment=environment)
    return episodes.survey(folder).scenario.model_copy(update={"seconds": seconds})


def test_drives_end_as_the_ego_car_collides_and_the_others_go_on(tmp_path):
    scenario = scenario_of(tmp_path / "raw", seconds=8)

    def faster(cars: np.ndarray) -> Control:
        still = np.zeros(len(cars))
        return Control(still + 6, still, lane_of(scenario.lanes, cars[:, 0, X], cars[:, 0, Y]))

    driven = closed_loop.drive(scenario, range(3), faster, LOG)
    assert any(each.collided for each in driven)
    for each in driven:
        assert len(each.cars) < 41 if each.collided else len(each.cars) == 41


def test_without_the_simulator_evaluation_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(closed_loop, "find_spec", lambda name: None)
    with pytest.raises(PedigreeError, match=r"evaluates in closed loop, is not installed: install it with `uv pip"):
        train.predict(network(), {"seed": torch.tensor([0])}, values())


def test_the_simulator_repeats_a_recorded_drive(tmp_path):
    tiny.write(tmp_path / "raw", train=1, test=1)
    scenario = episodes.survey(tmp_path / "raw").scenario
    drive = episodes.read(tmp_path / "raw", "test/1000000.csv", scenario.lanes)
    (again,) = closed_loop.drive(scenario, [1_000_000], "expert", LOG)
    np.testing.assert_allclose(again.cars, drive.cars, atol=2e-3)


def test_on_the_merging_road_the_ramp_is_closed_to_the_ego_car(tmp_path):
    scenario = scenario_of(tmp_path / "raw", environment="merge")
    assert [lane.closed for lane in scenario.lanes] == [False, False, True]
    (driven,) = closed_loop.drive(scenario, [0], "idm", LOG)
    assert measures.measured(scenario.lanes, driven, scenario.hertz).off_road == 0


NEAREST, WAYPOINTS = 8, 3


def raw_features(cars: np.ndarray) -> torch.Tensor:
    """Return where the nearest cars are, and how fast, relative to the ego car."""
    ego, others = cars[:, :1], cars[:, 1:]
    near = np.argsort(np.abs(others[..., X] - ego[..., X]), axis=1)[:, :NEAREST, None]
    chosen = np.take_along_axis(others, near, 1)[..., [X, Y, SPEED]] - ego[..., [X, Y, SPEED]]
    chosen = chosen / [50, 4, 10]
    own = ego[:, 0][:, [Y, HEADING, SPEED]] / [4, 0.1, 30]
    return torch.from_numpy(np.concatenate([chosen.reshape(len(cars), -1), own], 1)).float()


def waypoint_policy(raw: Path, scenario: episodes.Scenario, files: list[str]) -> closed_loop.Policy:
    """Learn to regress where the expert is after 1, 2 and 3 seconds, and pursue these points."""
    inputs, targets = [], []
    for file in files:
        cars = episodes.read(raw, file, scenario.lanes).cars.astype(float)
        ahead = [n * scenario.hertz for n in range(1, WAYPOINTS + 1)]
        frames = np.arange(len(cars) - ahead[-1])
        inputs.append(raw_features(cars[frames]))
        moved = [cars[frames + n, 0][:, [X, Y]] - cars[frames, 0][:, [X, Y]] for n in ahead]
        targets.append(torch.from_numpy(np.concatenate(moved, 1) / 20).float())
    seen, wanted = torch.cat(inputs), torch.cat(targets)
    torch.manual_seed(0)
    sizes = [seen.shape[1], 128, 128]
    layers = [nn.Sequential(nn.Linear(a, b), nn.SiLU()) for a, b in pairwise(sizes)]
    model = nn.Sequential(*layers, nn.Linear(128, 2 * WAYPOINTS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(1500):
        chosen = torch.randint(len(seen), (64,))
        loss = (model(seen[chosen]) - wanted[chosen]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def pursue(cars: np.ndarray) -> Control:
        with torch.inference_mode():
            points = model(raw_features(cars)).double().numpy().reshape(-1, WAYPOINTS, 2) * 20
        ego = cars[:, 0]
        acceleration = np.clip(2 * (points[:, 0, 0] - ego[:, SPEED]), -6, 6)
        distance = np.hypot(points[:, 0, 0], points[:, 0, 1])
        angle = np.arctan2(points[:, 0, 1], points[:, 0, 0]) - ego[:, HEADING]
        steering = np.arctan(2 * ego[:, LENGTH] / 2 * np.sin(angle) / np.maximum(distance, 1))
        return Control(acceleration, steering, lane_of(scenario.lanes, ego[:, X], ego[:, Y] + points[:, 0, 1]))

    return pursue


@pytest.mark.long
def test_a_policy_of_waypoints_is_rejected_by_the_gate_for_its_collisions(tmp_path):
    raw = tmp_path / "raw"
    tiny.simulator.main(raw, "highway", 20, 40, 0)
    scenario, splits = episodes.survey(raw)
    policy = waypoint_policy(raw, scenario, splits["train"])
    driven = closed_loop.drive(scenario, range(5000, 5030), policy, LOG)
    table = measures.table(scenario.lanes, driven, scenario.hertz)
    columns = dict(zip(measures.Measures._fields, table.T, strict=True))
    metrics = {"progress": 1.0, "collision_rate": columns["collided"].mean(), "off_road_rate": 0.0}
    assert math.isfinite(metrics["collision_rate"])
    outcomes = Outcomes([str(n) for n in range(len(driven))], {**columns, "safe": 1 - columns["collided"]})
    bounds = {"at_least": {"progress": 0.9}, "at_most": {"collision_rate": 0.02, "off_road_rate": 0.02}}
    section = values(register={"gate": bounds}).register_.gate
    candidate = gate.Candidate(metrics, outcomes, 0.1, 1)
    failed = [
        rule.rule for rule in gate.judge(candidate, None, evaluate.score(None), section, 0) if not rule.passed
    ]
    assert failed == ["collision_rate at most 0.02"]
