"""BERT's encoder (Devlin et al. 2019, arXiv:1810.04805): tokens in, a vector for each of them out."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from components.text.networks.transformer import present
from components.text.params import BertParams

EPSILON = 1e-12
"""Added to the variance in layer norms, as layer_norm_eps in a BERT's config.json."""
DEVIATION = 0.02
"""Standard deviation of random weights, as initializer_range there."""
KINDS = 2
"""A sample's first and second text."""


class Bert(nn.Module):
    """The encoder without the pooler and heads of its pretraining.

    Args:
        size: Its size.
        vocabulary: Number of tokens.
        dropout: Rate for the embedded tokens, for each sublayer's output and for the attention, in training.
    """

    def __init__(self, size: BertParams, vocabulary: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, size.hidden)
        self.positions = nn.Embedding(size.positions, size.hidden)
        self.kinds = nn.Embedding(KINDS, size.hidden)
        self.norm = nn.LayerNorm(size.hidden, EPSILON)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(size, dropout) for _ in range(size.layers))
        self.apply(_initialise)

    def forward(self, token: Tensor, length: Tensor, first: Tensor | None = None) -> Tensor:
        """Return the vector of each token, (B, T, hidden); those after a sample's end mean nothing.

        Args:
            token: Ids, int64 (B, T), of at most `positions` tokens a sample.
            length: Number of each sample's tokens, int64 (B,).
            first: How many of them belong to its first text, int64 (B,); None if there is one text.
        """
        second = present(length if first is None else first, token.shape[1]).logical_not()  # (B, T)
        x = self.tokens(token) + self.positions.weight[: token.shape[1]] + self.kinds(second.long())
        x = self.dropout(self.norm(x))
        attended = present(length, token.shape[1])[:, None, None]  # (B, 1, 1, T)
        for layer in self.layers:
            x = layer(x, attended)
        return cast(Tensor, x)


class Layer(nn.Module):
    """Self-attention and a feed-forward layer, each followed by a layer norm of its output and its input."""

    def __init__(self, size: BertParams, dropout: float) -> None:
        super().__init__()
        self.heads = size.heads
        self.projected = nn.Linear(size.hidden, 3 * size.hidden)  # queries, keys and values
        self.attention = nn.Linear(size.hidden, size.hidden)
        self.attention_norm = nn.LayerNorm(size.hidden, EPSILON)
        self.widen = nn.Linear(size.hidden, size.intermediate)
        self.narrow = nn.Linear(size.intermediate, size.hidden)
        self.norm = nn.LayerNorm(size.hidden, EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """Map x (B, T, hidden); `attended`, bool (B, 1, 1, T), says which tokens are of a sample."""
        x = self.attention_norm(x + self.dropout(self.attention(self._attend(x, attended))))
        return cast(Tensor, self.norm(x + self.dropout(self.narrow(F.gelu(self.widen(x))))))

    def _attend(self, x: Tensor, attended: Tensor) -> Tensor:
        queries, keys, values = (
            self.projected(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, T, D)
        )
        rate = self.dropout.p if self.training else 0.0
        return F.scaled_dot_product_attention(queries, keys, values, attended, rate).transpose(1, 2).flatten(2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=DEVIATION)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
