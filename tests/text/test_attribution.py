"""What words contribute to an output adds up to the output, and each token's part goes to its word."""

import pytest
import torch
from tokenizers import Tokenizer
from torch import nn

from components.text import attribution, samples, tokens
from components.text.attribution import Word
from components.text.networks.pooled import TextCnn
from components.text.params import SampleTokenizerParams


def test_contributions_add_up_to_the_difference_that_the_text_makes():
    torch.manual_seed(0)
    network, token = TextCnn(20, 8, 4, 0.5).eval(), torch.tensor([3, 7, 1, 12, 5])

    def output(given: torch.Tensor) -> torch.Tensor:
        return network(given, torch.full((len(given),), 5))[:, 2]

    found = attribution.of_tokens(network.tokens, output, token, steps=500)
    with torch.no_grad():
        difference = output(token[None])
        network.tokens.weight.zero_()
        difference -= output(token[None])
    assert found.sum().item() == pytest.approx(difference.item(), abs=1e-3)
    assert not found.isnan().any()


def test_of_a_linear_output_each_token_contributes_its_own_part():
    embedding = nn.Embedding(10, 4)
    weights = torch.randn(4)
    token = torch.tensor([1, 5, 2])
    found = attribution.of_tokens(embedding, lambda given: (embedding(given) @ weights).sum(1), token, steps=2)
    torch.testing.assert_close(found, (embedding(token) @ weights).detach())


def test_the_network_is_as_before_afterwards_also_after_an_error():
    embedding, token = nn.Embedding(10, 4), torch.tensor([1, 5])
    before = embedding(token)

    def failing(given: torch.Tensor) -> torch.Tensor:
        embedding(given)
        raise KeyError

    with pytest.raises(KeyError):
        attribution.of_tokens(embedding, failing, token)
    assert torch.equal(embedding(token), before)
    assert embedding.weight.grad is None


TEXTS = ["The cat, it sat.", "Don't stop the (old) cat!", "naïve 👩‍💻 cats"]


def tokenizer(name: str) -> Tokenizer:
    values = {"name": name, "vocabulary": 300, "min_count": 1, "lowercase": True, "from": ""}
    return samples.learn(SampleTokenizerParams.model_validate(values), TEXTS)


@pytest.mark.parametrize("name", ["word", "bpe"])
@pytest.mark.parametrize("text", TEXTS)
def test_each_token_counts_for_the_word_that_it_is_in(name, text):
    read = tokenizer(name)
    encoded = read.encode(text)
    weights = [1.0 + number for number in range(len(encoded))]
    (found,) = attribution.of_words(encoded, [text], weights)
    assert [word.text for word in found] == text.split()
    assert sum(word.weight for word in found) == sum(weights)
    first = tokens.encode(read, text.split()[0])
    assert found[0].weight == sum(weights[: len(first)])


def test_each_text_of_a_pair_has_its_own_words():
    encoded = tokenizer("word").encode("the cat", "it sat")
    first, second = attribution.of_words(encoded, ["the cat", "it sat"], [1.0, 2.0, 9.0, 3.0, 4.0])
    assert (first, second) == ([Word("the", 1), Word("cat", 2)], [Word("it", 3), Word("sat", 4)])


def test_a_token_of_white_space_belongs_to_no_word():
    encoded = tokenizer("word").encode("the\ncat")
    assert encoded.tokens == ["the", "<eos>", "cat"]
    assert attribution.of_words(encoded, ["the\ncat"], [1.0, 9.0, 2.0]) == [[Word("the", 1), Word("cat", 2)]]
