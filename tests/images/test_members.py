"""An ensemble inside one module."""

import torch
from torch import nn
from torch.testing import assert_close

from components.images.networks.members import Members, averaged


def test_members_differ_and_their_probabilities_are_averaged():
    torch.manual_seed(0)
    network = Members(lambda: nn.Linear(4, 3), 5, several=False)
    x = torch.randn(7, 4)
    each = network.train()(x)
    assert each.shape == (5, 7, 3)
    assert len({float(part[0, 0]) for part in each}) == 5
    assert_close(network.eval()(x).softmax(1), each.softmax(2).mean(0))


def test_with_several_labels_the_probability_of_each_is_averaged():
    logits = torch.randn(5, 7, 3) * 4
    assert_close(averaged(logits, several=True).sigmoid(), logits.sigmoid().mean(0))


def test_probabilities_that_round_to_0_or_1_keep_their_order():
    logits = torch.tensor([[[-200.0], [-300.0], [200.0]]] * 2)
    for several in (True, False):
        rows = logits if several else torch.cat([torch.zeros_like(logits), logits], 2)
        found = averaged(rows, several)[:, -1]
        assert found.isfinite().all()
        assert found[1] < found[0] < found[2]
