"""Predictions on a split, in its order."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from components.runtime import progress
from components.training import inference
from tests.training.test_loop import CPU, split, toy


@pytest.mark.parametrize(
    ("quiet", "lines"), [(60, []), (-1, [f"{n} of 3 batches predicted" for n in (1, 2, 3)])], ids=["short", "long"]
)
def test_long_predictions_say_how_far_they_are_and_short_ones_nothing(quiet, lines, caplog, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", quiet)
    values = SimpleNamespace(evaluate=SimpleNamespace(batch_size=16, seed=0))
    with caplog.at_level(logging.INFO, "pedigree.evaluate"):
        model = nn.Linear(4, 1)
        found = list(inference.predictions(toy(), values, model, split("test"), CPU))
    assert torch.equal(torch.cat([each["y"] for each in found]), model(split("test")["x"]))
    assert caplog.messages == lines
