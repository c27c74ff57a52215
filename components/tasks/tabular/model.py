"""The network of a table: members that each answer, and what becomes of their answers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from components.classification.calibration import Temperature
from components.classification.decision import Decision
from components.contracts import Manifest
from components.tables import facts
from components.tables.facts import TableFacts
from components.tables.networks import FtTransformer, TabM
from components.tasks.tabular.params import TabularParams


class Predictor(nn.Module):
    """Maps the columns of a table to logits, or to a quantity.

    Args:
        network: Returns the outputs of its members, (members, B, outputs).
        known: What is known of the table.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, known: TableFacts) -> None:
        super().__init__()
        self.network = network
        self.classes = len(known.classes)
        self.register_buffer("mean", torch.tensor(known.mean, dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(known.deviation, dtype=torch.float32))
        if self.classes:
            self.temperature = Temperature()
        if known.positive:
            self.decision = Decision(known.problem.index, self.classes)
            self.decision.threshold.fill_(known.threshold)

    def forward(self, number: Tensor | None, category: Tensor | None) -> Tensor:
        """Return logits (B, classes), or a quantity (B, 1); in training those of each member, (members, B, …).

        In training, a quantity has mean 0 and standard deviation 1. The probabilities of members are averaged, and
        the temperature is applied to the result.

        Args:
            number: float32 (B, numbers) with NaN for missing ones; None if there are no such columns.
            category: Indices, int (B, categories); None if there are no such columns.
        """
        outputs: Tensor = self.network(number, category)
        if self.training:
            return outputs
        outputs = outputs.float()
        if not self.classes:
            return outputs.mean(0) * self.deviation + self.mean
        averaged = outputs.log_softmax(-1).logsumexp(0) - math.log(len(outputs))
        logits: Tensor = self.temperature(averaged)
        return logits


def build_model(params: TabularParams, manifest: Manifest) -> nn.Module:
    """Build a randomly initialised network for the prepared table."""
    known, chosen = facts.of(manifest), params.train.model
    outputs = len(known.classes) or 1
    network: nn.Module
    if chosen.network == "tabm":
        network = TabM(
            known.columns,
            outputs,
            members=chosen.members,
            size=chosen.size,
            layers=chosen.layers,
            dropout=chosen.dropout,
            embedding=chosen.embedding,
        )
    else:
        network = FtTransformer(
            known.columns,
            outputs,
            size=chosen.size,
            layers=chosen.layers,
            heads=chosen.heads,
            dropout=chosen.dropout,
        )
    return Predictor(network, known)
