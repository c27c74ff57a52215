"""Parameters, facts and networks of image generation for tests."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from components import params
from components.contracts import Manifest
from components.tasks.image_generation.model import Flow, build_model
from components.tasks.image_generation.params import FlowParams

ROOT = Path(__file__).parents[3]
SIZE = 28


def values(**sections: Any) -> FlowParams:
    """Return the parameters of the tests' model; `train={"flip": True}` changes one of them."""
    tree = params.Values({"models": {"made-digits": sections}}, {}).over(params.read(ROOT / "tests" / params.FILE))
    return params.validate(FlowParams, tree, ("models", "made-digits"))


SMALL = values(
    train={"model": {"width": 8}}, evaluate={"sampling": {"sampler": "euler", "steps": 2}, "limits": {"count": 40}}
)


def manifest(channels: int = 1, size: int = SIZE) -> Manifest:
    """Return the manifest of images of three classes."""
    half = [0.5] * channels
    facts = {
        "classes": ["a", "b", "c"],
        "channels": channels,
        "size": size,
        "mean": half,
        "std": half,
        "counts": {},
    }
    return Manifest(task="image_generation", splits={}, rejected=[], facts=facts)


def network(chosen: FlowParams = SMALL, channels: int = 1, size: int = SIZE) -> Flow:
    """Return a network that has learnt nothing, in which no weight is zero, so that all of it matters."""
    torch.manual_seed(0)
    model = build_model(chosen, manifest(channels, size))
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model.eval()
