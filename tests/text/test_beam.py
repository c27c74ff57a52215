"""Beam search: equal to trying all texts, the same for each sample alone, and independent of what it follows."""

from itertools import product

import pytest
import torch
from torch import Tensor

from components.text.beam import Hypothesis, Width, extensions, follow, search
from components.text.networks.gru import RecurrentEncoderDecoder
from components.text.networks.transformer import EncoderDecoder

START, END, VOCABULARY = 0, 1, 4
SOURCE = torch.tensor([[2, 3, 2, 1], [3, 3, 1, 0], [2, 1, 0, 0]])
LENGTH = torch.tensor([4, 3, 2])
MOST = [3, 4, 2]


@pytest.fixture(scope="module", params=["transformer", "gru"])
def network(request) -> EncoderDecoder | RecurrentEncoderDecoder:
    """A network with random weights that are large, so that its samples' best texts differ, also in length."""
    torch.manual_seed(9)
    made = (
        EncoderDecoder(VOCABULARY, size=16, heads=2, inner=32, layers=2, dropout=0.1)
        if request.param == "transformer"
        else RecurrentEncoderDecoder(VOCABULARY, size=16, layers=2, dropout=0.1)
    )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.6)
    return made.eval()


def found(network, samples: slice = slice(None), beam: int = 200, penalty: float = 0.6) -> list[list[Hypothesis]]:
    memory = network.encode(SOURCE[samples], LENGTH[samples])
    return search(network.step, memory, MOST[samples], START, END, Width(beam, penalty))


@torch.inference_mode()
def every(network, sample: int, penalty: float) -> list[Hypothesis]:
    """Score all texts that the sample may have, each by a pass of its own."""
    texts = [list(text) for n in range(MOST[sample] + 1) for text in product((2, 3), repeat=n)]
    scored = []
    for text in texts:
        target = torch.tensor([[START, *text]])
        logits = network(SOURCE[sample : sample + 1], LENGTH[sample : sample + 1], target)
        log_probabilities = logits[0].log_softmax(-1)
        total = float(sum(log_probabilities[i, token] for i, token in enumerate([*text, END])))
        scored.append(Hypothesis(text, total, total / (len(text) + 1) ** penalty))
    return sorted(scored, key=lambda each: -each.score)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_a_beam_that_holds_all_texts_finds_what_trying_them_all_finds(network, penalty):
    for sample, hypotheses in enumerate(found(network, penalty=penalty)):
        expected = every(network, sample, penalty)
        assert [each.tokens for each in hypotheses] == [each.tokens for each in expected]
        for one, other in zip(hypotheses, expected, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-5)
            assert one.score == pytest.approx(other.score, abs=1e-5)


@pytest.mark.parametrize("beam", [1, 2, 3])
def test_samples_searched_together_get_what_each_gets_alone(network, beam):
    together = found(network, beam=beam)
    for sample, hypotheses in enumerate(together):
        (alone,) = found(network, slice(sample, sample + 1), beam)
        assert [each.tokens for each in hypotheses] == [each.tokens for each in alone]
        assert [each.score for each in hypotheses] == pytest.approx([each.score for each in alone], abs=1e-5)


def test_a_beam_of_one_takes_the_likeliest_token_at_each_step(network):
    for sample, (only,) in enumerate(found(network, beam=1)):
        tokens: list[int] = []
        while len(tokens) < MOST[sample]:
            target = torch.tensor([[START, *tokens]])
            logits = network(SOURCE[sample : sample + 1], LENGTH[sample : sample + 1], target)[0, -1]
            logits[START] = -torch.inf
            if (token := int(logits.argmax())) == END:
                break
            tokens.append(token)
        assert only.tokens == tokens


def test_no_text_is_longer_than_its_limit_or_has_the_token_before_the_first(network):
    for limit, hypotheses in zip(MOST, found(network), strict=True):
        assert max(len(each.tokens) for each in hypotheses) == limit
        assert all({*each.tokens} <= {2, 3} for each in hypotheses)


def test_a_sample_that_may_write_nothing_ends_at_once():
    def step(last: Tensor, memory: dict, state: dict) -> tuple[Tensor, dict]:
        return torch.zeros(*last.shape, VOCABULARY), {}

    ((only,),) = search(step, {"x": torch.zeros(1, 1)}, [0], START, END, Width(3, 1.0))
    assert only.tokens == []
    assert only.log_probability == pytest.approx(-torch.tensor(4.0).log().item())


def test_the_state_of_a_hypothesis_follows_it():
    chosen = follow({"x": torch.arange(6).view(3, 2)}, torch.tensor([0, 2]), torch.tensor([[1, 1, 0], [0, 1, 1]]))
    assert chosen["x"].tolist() == [[1, 1, 0], [4, 5, 5]]


def test_the_best_extensions_are_those_of_all_hypotheses_together():
    torch.manual_seed(0)
    totals, log_probabilities = torch.randn(2, 3), torch.randn(2, 3, 5).log_softmax(-1)
    best = extensions(totals, log_probabilities, 4)
    expected = (totals[:, :, None] + log_probabilities).flatten(1).topk(4)
    assert torch.equal(best.totals, expected.values)
    assert torch.equal(best.parents * 5 + best.tokens, expected.indices)
