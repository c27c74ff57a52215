"""What a trained network makes the ego car do, and the plan that follows from it."""

from copy import deepcopy

import numpy as np
import torch

from components.tasks.driving import kinematics
from components.tasks.driving.closed_loop import Control, Policy
from components.tasks.driving.model import Planner
from components.tasks.driving.road import HEADING, SPEED, Floats, Road, X, Y, features, lane_of, usable


def policy_of(model: Planner) -> Policy:
    """Return the policy of a network.

    It computes in float64: each decision of a drive depends on those before, and none may depend on how many drives
    share a batch, as the last bits of float32 do.
    """
    exact, road = deepcopy(model).double().eval(), model.scenario.lanes
    device = exact.mean.device

    @torch.inference_mode()
    def decide(cars: Floats) -> Control:
        seen = torch.from_numpy(features(road, cars)).double().to(device)
        with torch.autocast(device.type, enabled=False):
            acceleration, logits = exact(seen)
        limited = torch.clamp(acceleration, exact.limits[0], exact.limits[1]).cpu().numpy()
        return controls(road, cars[:, 0], limited, logits.cpu().numpy())

    return decide


def controls(road: Road, ego: Floats, acceleration: Floats, logits: Floats) -> Control:
    """Return what ego cars (N, 6) do, given accelerations (N,) and logits (N, 3) of the change of lane.

    A lane that they may not use is never chosen.
    """
    index, own = np.arange(len(ego)), lane_of(road, ego[:, X], ego[:, Y])
    free = usable(road, ego[:, X])
    wanted = own[:, None] + np.array([-1, 0, 1])
    inside = (wanted >= 0) & (wanted < len(road))
    possible = inside & free[index[:, None], np.clip(wanted, 0, len(road) - 1)]
    lane = own + np.where(possible, logits, -np.inf).argmax(1) - 1
    return Control(acceleration, kinematics.steering(road, ego, lane), lane)


def planned(policy: Policy, road: Road, cars: Floats, seconds: float, hertz: int) -> tuple[Control, Floats]:
    """Return what ego cars do now, and where they will be if all other cars keep their lanes and speeds.

    Args:
        policy: Decides once in a frame.
        road: The road.
        cars: Cars (N, C, 6).
        seconds: How long to plan for.
        hertz: Frames a second.

    Returns:
        What they do, and the ego cars in each later frame, (N, T, 6).
    """
    first, places, scene = policy(cars), [], cars.copy()
    control = first
    for _ in range(round(seconds * hertz)):
        scene[:, 0] = kinematics.moved(scene[:, 0], control.acceleration, control.angle, 1 / hertz)
        scene[:, 1:, X] += scene[:, 1:, SPEED] / hertz * np.cos(scene[:, 1:, HEADING])
        places.append(scene[:, 0].copy())
        control = policy(scene)
    return first, np.stack(places, 1)
