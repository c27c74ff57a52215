"""Networks that make one vector of a text look at all of it, and at nothing beyond."""

import pytest
import torch
import torch.nn.functional as F

from components.text.networks import pooled
from components.text.networks.pooled import TextCnn, TextLstm


def test_the_mean_and_the_largest_value_are_those_of_the_text_alone():
    x = torch.tensor([[[1.0, -5.0], [3.0, -1.0], [100.0, 100.0]]])
    assert pooled.mean(x, torch.tensor([2])).tolist() == [[2.0, -3.0]]
    assert pooled.largest(x, torch.tensor([2])).tolist() == [[3.0, -1.0]]


def test_a_filter_sees_the_tokens_around_each_token_and_zeros_beyond_the_ends():
    torch.manual_seed(0)
    network, token = TextCnn(9, 4, 2, 0.0).eval(), torch.tensor([[3, 1, 4]])
    found = network(token, torch.tensor([3]))[0]
    x = F.pad(network.tokens(token)[0], (0, 0, 4, 4))
    expected = []
    for width, layer in zip(pooled.WIDTHS, network.convolutions, strict=True):
        for number in range(2):
            windows = [x[4 + place - (width - 1) // 2 :][:width] for place in range(3)]
            outputs = [(layer.weight[number] * window.T).sum() + layer.bias[number] for window in windows]
            expected.append(max(0.0, *(each.item() for each in outputs)))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_first_token_matters_to_an_lstm_as_the_last_one_does():
    torch.manual_seed(0)
    network, token, length = TextLstm(9, 4, 2, 0.0).eval(), torch.tensor([[3, 1, 4, 5]]), torch.tensor([4])
    whole = network(token, length)
    assert whole.shape == (1, 4)
    for place in (0, 3):
        changed = token.clone()
        changed[0, place] = 8
        assert not torch.equal(network(changed, length), whole)
