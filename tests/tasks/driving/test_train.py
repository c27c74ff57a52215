"""What a batch is trained on, and what a network makes cars do."""

import numpy as np
import torch

from components.contracts import Manifest
from components.tasks.driving import decisions, road, train
from components.tasks.driving.model import Planner, build_model
from components.tasks.driving.prepare import DrivingFacts
from components.tasks.driving.road import FEATURES
from tests.tasks.driving.test_road import HIGHWAY, RAMP, cars
from tests.tasks.driving.values import values


def manifest(lanes: road.Road = HIGHWAY) -> Manifest:
    """Return the manifest of drives of which nothing else is known."""
    facts = DrivingFacts.model_validate(
        {
            "scenario": {
                "simulator": "none",
                "environment": "highway",
                "hertz": 5,
                "seconds": 2,
                "lanes": [lane.model_dump() for lane in lanes],
            },
            "mean": [0.0] * len(FEATURES),
            "spread": [1.0] * len(FEATURES),
            "accelerations": (-4.0, 2.0),
            "changes": {},
            "drives": {},
        }
    )
    return Manifest(task="driving", splits={}, rejected=[], facts=facts.model_dump(mode="json"))


def network(lanes: road.Road = HIGHWAY, acceleration: float = 0, left: float = 0, right: float = 0) -> Planner:
    """Return a network that always answers the same."""
    model = build_model(values(), manifest(lanes))
    assert isinstance(model, Planner)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([acceleration, left, 0.5, right]))
    return model.eval()


def test_the_loss_weighs_the_lane_beside_the_acceleration():
    model, batch = (
        network(acceleration=1),
        {
            "features": torch.zeros(2, len(FEATURES)),
            "acceleration": torch.tensor([1.0, 3.0]),
            "change": torch.tensor([1, 0]),
        },
    )
    only, both = (train.step(model, batch, values(train={"lane_weight": weight})) for weight in (0, 2))
    assert only.loss.item() == 1.5  # Huber's loss of 0 and of 2
    logits = torch.tensor([[0, 0.5, 0]]).expand(2, 3)
    lane = torch.nn.functional.cross_entropy(logits, batch["change"], reduction="sum")
    torch.testing.assert_close(both.loss, only.loss + 2 * lane)
    assert both.sums["acceleration_error"].item() == 2
    assert both.sums["lane_accuracy"].item() == 1


def test_the_acceleration_stays_within_that_of_training():
    scene = cars((100, 4, 30))
    assert decisions.policy_of(network(acceleration=9))(scene).acceleration.tolist() == [2]
    assert decisions.policy_of(network(acceleration=-9))(scene).acceleration.tolist() == [-4]


def test_a_lane_that_is_not_there_or_closed_is_never_chosen():
    leftmost, rightmost = cars((100, 0, 30)), cars((100, 8, 30))
    assert decisions.policy_of(network(left=1))(leftmost).lane.tolist() == [0]
    assert decisions.policy_of(network(left=1))(rightmost).lane.tolist() == [1]
    assert decisions.policy_of(network(RAMP, right=1))(cars((250, 4, 30))).lane.tolist() == [1]
    assert decisions.policy_of(network(RAMP, right=1))(cars((250, 0, 30))).lane.tolist() == [1]


def test_a_decision_does_not_depend_on_the_other_scenes_of_the_batch():
    torch.manual_seed(0)
    policy = decisions.policy_of(build_model(values(), manifest()).eval())
    drawn = np.random.default_rng(0)
    scenes = np.concatenate([cars((100, 4, v), (100 + g, 4, 20)) for g, v in drawn.uniform(10, 30, (12, 2))])
    together = policy(scenes)
    for place, scene in enumerate(scenes):
        alone = policy(scene[None])
        np.testing.assert_allclose(alone.acceleration, together.acceleration[[place]], rtol=1e-12, atol=1e-12)
        assert alone.lane[0] == together.lane[place]


def test_a_plan_is_where_the_decisions_lead_while_other_cars_keep_their_speeds():
    scene = cars((100, 4, 20), (140, 4, 20))
    control, places = decisions.planned(decisions.policy_of(network(acceleration=1)), HIGHWAY, scene, 3, 5)
    assert control.acceleration.tolist() == [1]
    assert places.shape == (1, 15, 6)
    assert abs(places[0, -1, road.SPEED] - 23) < 1e-9
    assert abs(places[0, -1, road.X] - (100 + 20 * 3 + 3**2 / 2)) < 0.5
    _, places = decisions.planned(decisions.policy_of(network(left=1)), HIGHWAY, cars((100, 8, 20)), 8, 5)
    assert abs(places[0, -1, road.Y]) < 0.2, "two lanes to the left, one after the other"
