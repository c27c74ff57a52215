"""The LSTMs read a question and its context, and nothing beyond."""

import pytest
import torch

from components.text.networks.attentive import AttentiveLstm


def build(layers: int = 1) -> AttentiveLstm:
    torch.manual_seed(0)
    return AttentiveLstm(30, 8, layers, 0.0).eval()


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
def test_what_follows_the_end_of_a_sample_changes_nothing(layers):
    network, token = build(layers), torch.randint(30, (3, 9), generator=torch.Generator().manual_seed(1))
    length, first = torch.tensor([9, 6, 2]), torch.tensor([4, 2, 1])
    whole = network(token, length, first)
    assert whole.shape == (3, 9, 16)
    for row, count in enumerate(length.tolist()):
        alone = network(token[row, None, :count], length[row, None], first[row, None])[0]
        torch.testing.assert_close(whole[row, :count], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_each_token_of_the_question_reaches_each_token_of_the_context():
    network, token = build(), torch.arange(2, 9)[None]
    length, first = torch.tensor([7]), torch.tensor([3])
    before = network(token, length, first)[0]
    for place in range(3):
        changed = token.clone()
        changed[0, place] = 20
        after = network(changed, length, first)[0]
        assert all(not torch.equal(before[at], after[at]) for at in range(3, 7))


@torch.no_grad()
def test_a_token_of_the_context_that_the_question_has_too_is_told_apart():
    network = build()
    seen = []
    network.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.tensor([[5, 6, 7, 6, 8]]), torch.tensor([5]), torch.tensor([2]))
    assert seen[0][0, :, -1].tolist() == [1, 1, 0, 1, 0]
