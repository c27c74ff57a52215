"""The Transformer: padding, causality, the cache, attention weights and the shared embedding."""

import pytest
import torch
from torch import Tensor

from components.text.networks.transformer import Encoder, EncoderDecoder, present, waves

VOCABULARY = 11
SOURCE = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
LENGTH = torch.tensor([4, 2])
TARGET = torch.tensor([[1, 9, 10, 3, 5], [1, 4, 4, 6, 7]])


@pytest.fixture(scope="module")
def network() -> EncoderDecoder:
    torch.manual_seed(0)
    return EncoderDecoder(VOCABULARY, size=16, heads=4, inner=32, layers=2, dropout=0.1).eval()


def test_padding_changes_nothing_that_the_encoder_says_of_tokens(network):
    encoder = network.encoder
    padded = encoder(SOURCE, LENGTH)
    torch.testing.assert_close(padded[1:, :2], encoder(SOURCE[1:, :2], LENGTH[1:]))
    torch.testing.assert_close(padded[:1], encoder(SOURCE[:1], LENGTH[:1]))


def test_the_encoder_sees_in_which_order_tokens_stand(network):
    there, back = network.encoder(SOURCE[:1], LENGTH[:1]), network.encoder(SOURCE[:1].flip(1), LENGTH[:1])
    assert not torch.allclose(there, back.flip(1), atol=1e-3)


def test_logits_depend_only_on_the_source_and_on_earlier_tokens(network):
    changed = TARGET.clone()
    changed[:, 3] = 2
    before, after = network(SOURCE, LENGTH, TARGET), network(SOURCE, LENGTH, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-3)


def test_steps_with_a_cache_give_the_logits_of_one_pass_over_the_target(network):
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
    assert torch.all(weights[0] > 0)


def test_source_target_and_output_share_one_matrix(network):
    shared = [p for p in network.parameters() if p.shape == (VOCABULARY, 16)]
    assert len(shared) == 1
    assert network.output.weight is network.encoder.embedding.tokens.weight


def test_positions_are_encoded_by_sines_and_cosines_of_falling_rates():
    encoded = waves(2, 3, 4, torch.device("cpu"))
    angles = torch.arange(2.0, 5)[:, None] * torch.tensor([1, 0.01])
    torch.testing.assert_close(encoded, torch.cat([angles.sin(), angles.cos()], 1))


def test_a_position_is_present_if_it_is_before_the_length():
    assert present(LENGTH, 3).tolist() == [[True] * 3, [True, True, False]]


def test_dropout_acts_in_training_only(network):
    encoder = Encoder(VOCABULARY, size=16, heads=2, inner=8, layers=1, dropout=0.5)
    one, two = (encoder(SOURCE, LENGTH) for _ in range(2))
    assert not torch.equal(one, two)
    encoder.eval()
    assert torch.equal(encoder(SOURCE, LENGTH), encoder(SOURCE, LENGTH))
