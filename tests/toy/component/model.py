"""A straight line."""

from components.toy.params import ToyParams
from torch import nn

from components.contracts import Batch, Manifest


def build_model(params: ToyParams, manifest: Manifest) -> nn.Module:
    """Map x (N, 1) to y (N, 1)."""
    return nn.Linear(1, 1)


def initialise(model: nn.Module, params: ToyParams, split: Batch) -> None:
    """Keep the random weights."""
