"""Recurrent layers are called as torch's own; tests/cuda has what differs on a GPU."""

import pytest
import torch
from torch import nn

from components import recurrent
from tests.conftest import BF16


@BF16
@pytest.mark.parametrize("layer", [nn.LSTM(4, 3, batch_first=True), nn.GRU(4, 3, batch_first=True)])
def test_on_the_cpu_a_layer_computes_to_the_last_bit_what_it_does_alone(layer):
    x = torch.randn(2, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        (expected, state), (found, last) = layer(x), recurrent.apply(layer, x)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
        assert torch.equal(recurrent.apply(layer, x, last)[0], layer(x, state)[0])
