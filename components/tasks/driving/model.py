"""The network: a perceptron from what the ego car sees to its acceleration and its change of lane."""

from typing import cast

import torch
from torch import Tensor, nn

from components.contracts import Manifest
from components.tasks.driving.episodes import Scenario
from components.tasks.driving.params import DrivingParams
from components.tasks.driving.prepare import DrivingFacts
from components.tasks.driving.road import FEATURES

CHANGES = 3
"""To the left, none, to the right."""


class Planner(nn.Module):
    """Maps features to an acceleration and logits of a change of lane."""

    mean: Tensor
    spread: Tensor
    limits: Tensor

    def __init__(self, facts: DrivingFacts, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.scenario: Scenario = facts.scenario
        self.register_buffer("mean", torch.tensor(facts.mean))
        self.register_buffer("spread", torch.tensor(facts.spread))
        self.register_buffer("limits", torch.tensor(facts.accelerations))
        """Least and largest acceleration of the training drives in m/s², (2,)."""
        sizes = [len(FEATURES), *[width] * layers]
        hidden = [nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Dropout(dropout)) for size in sizes[:-1]]
        self.body = nn.Sequential(*hidden)
        self.head = nn.Linear(width, 1 + CHANGES)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return accelerations in m/s², (N,), and logits (N, 3), of features (N, F)."""
        out = cast(Tensor, self.head(self.body((features - self.mean) / self.spread)))
        return out[:, 0], out[:, 1:]


def build_model(params: DrivingParams, manifest: Manifest) -> nn.Module:
    """Build a randomly initialised network for the prepared drives."""
    chosen = params.train.model
    facts = DrivingFacts.model_validate(manifest.facts)
    return Planner(facts, chosen.width, chosen.layers, chosen.dropout)
