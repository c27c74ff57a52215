"""Loss and validation of a batch of samples, and the drives in closed loop that evaluation needs."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Batch, Better, StepOutput
from components.tasks.driving import closed_loop, measures
from components.tasks.driving.decisions import policy_of
from components.tasks.driving.measures import Measures
from components.tasks.driving.model import Planner
from components.tasks.driving.params import DrivingParams

log = logging.getLogger("pedigree.evaluate")

BETTER: Mapping[str, Better] = {"loss": "less", "acceleration_error": "less", "lane_accuracy": "more"}
"""Validation metrics, and whether less or more is better."""
CARS, FRAMES = "cars", "frames"
"""Names of predictions: the cars in each frame, and the number of frames."""


def step(model: nn.Module, batch: Batch, params: DrivingParams) -> StepOutput:
    """Return a batch's summed loss: Huber's of the acceleration, and the cross-entropy of the change of lane.

    Args:
        model: A `Planner`.
        batch: `features`, float32 (B, F), `acceleration`, float32 (B,), and `change`, int64 (B,).
        params: `train.lane_weight` is used.
    """
    acceleration, logits = (each.float() for each in model(batch["features"]))
    losses = F.smooth_l1_loss(acceleration, batch["acceleration"], reduction="none")
    losses = losses + params.train.lane_weight * F.cross_entropy(logits, batch["change"], reduction="none")
    error = (acceleration.detach() - batch["acceleration"]).abs().double().sum()
    right = (logits.detach().argmax(1) == batch["change"]).double().sum()
    return StepOutput(losses.sum(), len(losses), {"acceleration_error": error, "lane_accuracy": right})


def predict(model: nn.Module, batch: Batch, params: DrivingParams) -> Batch:
    """Drive the seeds of a batch in closed loop.

    Args:
        model: A `Planner`.
        batch: `seed`, int64 (B,).
        params: Unused.

    Returns:
        The fields of `Measures`, float64 (B,); `cars`, float32 (B, T, C, 6), NaN after a drive's last frame; and
        the number of `frames`, int64 (B,).

    Raises:
        PedigreeError: the simulator is not installed.
    """
    assert isinstance(model, Planner), "from build_model"
    closed_loop.expect_simulator("evaluates in closed loop")
    scenario = model.scenario
    driven = closed_loop.drive(scenario, batch["seed"].cpu().tolist(), policy_of(model), log)
    table = measures.table(scenario.lanes, driven, scenario.hertz)
    found = {name: torch.from_numpy(table[:, place].copy()) for place, name in enumerate(Measures._fields)}
    return {
        **found,
        CARS: _joined([each.cars for each in driven]),
        FRAMES: torch.tensor([len(each.cars) for each in driven]),
    }


def _joined(tracks: list[np.ndarray]) -> Tensor:
    shape = [max(each.shape[axis] for each in tracks) for axis in (0, 1)]
    joined = np.full((len(tracks), *shape, tracks[0].shape[2]), np.nan, np.float32)
    for place, each in enumerate(tracks):
        joined[place, : each.shape[0], : each.shape[1]] = each
    return torch.from_numpy(joined)
