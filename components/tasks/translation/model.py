"""Builds the encoder-decoder for prepared pairs, and searches for translations with it."""

from typing import cast

from torch import Tensor, nn

from components.contracts import Manifest
from components.tasks.translation.params import SearchParams, TranslationParams
from components.tasks.translation.prepare import TranslationFacts
from components.text import beam
from components.text.beam import Hypothesis, Width
from components.text.networks.gru import RecurrentEncoderDecoder
from components.text.networks.transformer import EncoderDecoder

GROWTH, MORE = 1.5, 10
"""A translation has at most this many times the tokens of its source, and so many more."""


class Translator(nn.Module):
    """An encoder-decoder, and the tokens at the ends of a translation.

    Args:
        network: The encoder-decoder.
        start: The token before the first one of a translation.
        end: The token after the last one.
    """

    def __init__(self, network: EncoderDecoder | RecurrentEncoderDecoder, start: int, end: int) -> None:
        super().__init__()
        self.network, self.start, self.end = network, start, end

    def forward(self, source: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Return the logits of each token of a target, (B, T, vocabulary).

        Args:
            source: int64 (B, S), each with the token `end`.
            length: int64 (B,): the numbers of its tokens, with that one.
            target: int64 (B, T), each with the token `end`; padding at the ends changes nothing before it.
        """
        before = target.roll(1, 1)
        before[:, 0] = self.start
        return cast(Tensor, self.network(source, length, before))

    def translate(self, source: Tensor, length: Tensor, search: SearchParams) -> list[list[Hypothesis]]:
        """Return up to `search.beam` translations of each source, the best first; arguments as for `forward`."""
        memory = self.network.encode(source, length)
        most = [int(GROWTH * tokens) + MORE for tokens in length.cpu().tolist()]
        width = Width(search.beam, search.length_penalty)
        return beam.search(self.network.step, memory, most, self.start, self.end, width)

    def attention(self, source: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Return how much is read of each source token for each of the target's, (B, T, S); as for `forward`."""
        before = target.roll(1, 1)
        before[:, 0] = self.start
        return self.network.attention(source, length, before)


def build_model(params: TranslationParams, manifest: Manifest) -> nn.Module:
    """Build a randomly initialised network for the prepared pairs."""
    facts, chosen = TranslationFacts.model_validate(manifest.facts), params.train.model
    if chosen.network == "gru":
        network: EncoderDecoder | RecurrentEncoderDecoder = RecurrentEncoderDecoder(
            facts.vocabulary, chosen.size, chosen.layers, chosen.dropout
        )
    else:
        network = EncoderDecoder(
            facts.vocabulary, chosen.size, chosen.heads, chosen.inner, chosen.layers, chosen.dropout
        )
    return Translator(network, facts.start, facts.end)
