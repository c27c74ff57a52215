"""The decision of a classifier by thresholds chosen on the validation split: on one class, or on each label."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.classification import ranking
from components.contracts import Batch

THRESHOLD = "threshold"
"""Name of the thresholds among the predictions, float64 (N, K), the same for each sample."""


class Decision(nn.Module):
    """The end of a network: passes logits on, and carries the thresholds that are saved with the weights.

    Args:
        positive: Index of the positive one of two classes; None if a sample can have any of the classes.
        classes: Number of classes.
    """

    threshold: Tensor

    def __init__(self, positive: int | None, classes: int) -> None:
        super().__init__()
        self.positive = positive
        thresholds = classes if positive is None else 1
        self.register_buffer("threshold", torch.full((thresholds,), 0.5, dtype=torch.float64))  # (K,)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the logits unchanged."""
        return logits

    @torch.no_grad()
    def choose(self, predictions: Iterable[Batch]) -> None:
        """Set the thresholds that are best on the validation split: see `ranking.threshold`."""
        parts = [(probabilities(batch["logits"], self.positive), batch["label"]) for batch in predictions]
        probability, label = (torch.cat(column) for column in zip(*parts, strict=True))
        positive = label if self.positive is None else (label == self.positive)[:, None]  # (N, K)
        pairs = zip(positive.double().T.numpy(), probability.T.numpy(), strict=True)
        self.threshold.copy_(torch.tensor([ranking.threshold(*pair) for pair in pairs], dtype=torch.float64))


def probabilities(logits: Tensor, positive: int | None) -> Tensor:
    """Return the probability of the positive class (N, 1), or of each label (N, K), float64, from logits (N, C)."""
    wide = logits.double()
    return wide.sigmoid() if positive is None else wide.softmax(1)[:, positive, None]


def decided(probability: Tensor, threshold: Tensor, positive: int) -> Tensor:
    """Return the class of each sample of a problem of two classes, int64 (N,).

    Args:
        probability: Of the positive class, (N, 1).
        threshold: (1,) or (N, 1).
        positive: Index of the positive class, 0 or 1.
    """
    return torch.where((probability >= threshold)[:, 0], positive, 1 - positive)


def of(model: nn.Module) -> Decision | None:
    """Return the decision at the end of a network, if it has one."""
    return next((each for each in model.children() if isinstance(each, Decision)), None)
