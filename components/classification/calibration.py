"""Temperature scaling: one number by which logits are divided, so that probabilities agree with frequencies."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from components.contracts import Batch

WIDEST = 3.0
"""Largest absolute logarithm of a temperature."""


class Temperature(nn.Module):
    """Divides logits by a temperature that is chosen on the validation split and saved with the weights.

    Source: Guo et al. 2017, On calibration of modern neural networks (arXiv:1706.04599).
    """

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones((), dtype=torch.float32))

    def forward(self, logits: Tensor) -> Tensor:
        """Return logits (..., classes) over the temperature."""
        return logits / self.temperature

    @torch.no_grad()
    def choose(self, predictions: Iterable[Batch]) -> None:
        """Set the temperature to the one with the least cross-entropy on the validation split.

        Args:
            predictions: Batches of `logits` (B, classes), made with the present temperature, and `label`, int64
                (B,).
        """
        parts = [(batch["logits"].double().cpu(), batch["label"].cpu()) for batch in predictions]
        logits, label = (torch.cat(column) for column in zip(*parts, strict=True))
        self.temperature.mul_(best(logits, label))


def best(logits: Tensor, label: Tensor) -> float:
    """Return the temperature with the least cross-entropy.

    A label counts as (n + 1) / (n + classes) of its class, which has n samples: otherwise labels that are all
    predicted right would ask for a temperature of 0 (Platt 1999, "Probabilistic outputs for support vector
    machines", section 2.2).

    Args:
        logits: float64 (N, classes).
        label: int64 (N,).
    """
    classes = logits.shape[1]
    counts = label.bincount(minlength=classes).double()
    own = ((counts + 1) / (counts + classes))[label]  # (N,)
    target = ((1 - own) / max(classes - 1, 1))[:, None].expand(-1, classes).scatter(1, label[:, None], own[:, None])

    def loss(logarithm: float) -> float:
        return float(-(target * (logits / np.exp(logarithm)).log_softmax(1)).sum(1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded").x))


def of(model: nn.Module) -> Temperature | None:
    """Return the temperature at the end of a network, if it has one."""
    return next((each for each in model.children() if isinstance(each, Temperature)), None)
