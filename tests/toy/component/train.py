"""Least squares."""

from collections.abc import Mapping

import torch.nn.functional as F
from components.toy.params import ToyParams
from torch import nn

from components.contracts import Batch, StepOutput


def augment(batch: Batch, params: ToyParams) -> Batch:
    """Leave the points where they are."""
    return batch


def step(model: nn.Module, batch: Batch, params: ToyParams) -> StepOutput:
    """Return the mean squared error."""
    losses = F.mse_loss(model(batch["x"]).float(), batch["y"], reduction="none")[:, 0]
    return StepOutput(losses.mean(), {"loss": losses.detach().double().sum()}, len(losses))


def metrics(sums: Mapping[str, float], count: int) -> dict[str, float]:
    """Return the mean squared error."""
    return {"loss": sums["loss"] / count}


def predict(model: nn.Module, batch: Batch) -> Batch:
    """Return the line at x, and y, (N, 1)."""
    return {"line": model(batch["x"]).cpu(), "y": batch["y"].cpu()}
