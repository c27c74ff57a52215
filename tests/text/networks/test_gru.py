"""The recurrent encoder-decoder: padding, causality, steps and attention weights."""

import pytest
import torch
from torch import Tensor

from components.text.networks.gru import RecurrentEncoderDecoder
from tests.text.networks.test_transformer import LENGTH, SOURCE, TARGET, VOCABULARY


@pytest.fixture(scope="module")
def network() -> RecurrentEncoderDecoder:
    torch.manual_seed(0)
    return RecurrentEncoderDecoder(VOCABULARY, size=16, layers=2, dropout=0.1).eval()


def test_padding_of_the_source_changes_nothing(network):
    padded, alone = network(SOURCE, LENGTH, TARGET), network(SOURCE[1:, :2], LENGTH[1:], TARGET[1:])
    torch.testing.assert_close(padded[1:], alone)


def test_both_ends_of_the_source_are_known_at_each_of_its_positions(network):
    before = network.encode(SOURCE[:1], LENGTH[:1])["source"]
    for position, other in ((0, 3), (3, 0)):
        changed = SOURCE[:1].clone()
        changed[0, position] = 9
        after = network.encode(changed, LENGTH[:1])["source"]
        assert not torch.allclose(before[0, other], after[0, other], atol=1e-4)


def test_logits_depend_only_on_the_source_and_on_earlier_tokens(network):
    changed = TARGET.clone()
    changed[:, 3] = 2
    before, after = network(SOURCE, LENGTH, TARGET), network(SOURCE, LENGTH, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-3)


def test_steps_give_the_logits_of_one_pass_over_the_target(network):
    hypotheses = torch.stack([TARGET, TARGET.flip(0)], 1)  # (B, K, T)
    memory = network.encode(SOURCE, LENGTH)
    state: dict[str, Tensor] = {}
    for position in range(TARGET.shape[1]):
        logits, state = network.step(hypotheses[:, :, position], memory, state)
        for beam in range(2):
            expected = network(SOURCE, LENGTH, hypotheses[:, beam])[:, position]
            torch.testing.assert_close(logits[:, beam], expected, rtol=1e-4, atol=1e-5)


def test_attention_to_the_source_adds_up_to_one_and_leaves_out_its_padding(network):
    weights = network.attention(SOURCE, LENGTH, TARGET)
    assert weights.shape == (2, 5, 4)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 5))
    assert torch.all(weights[1, :, 2:] == 0)
