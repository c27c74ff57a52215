"""Networks that make one vector of a text: convolutional, recurrent, and the Transformer's mean.

Shapes: B texts, T positions, D features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.text.networks.directions import BothDirections
from components.text.networks.transformer import present

WIDTHS = (3, 4, 5)
"""Tokens that a filter of a convolutional network sees."""


def mean(x: Tensor, length: Tensor) -> Tensor:
    """Return the mean over the positions that are no padding, (B, D), of x (B, T, D)."""
    inside = present(length, x.shape[1])[:, :, None].to(x.dtype)
    return (x * inside).sum(1) / length[:, None].clamp(min=1).to(x.dtype)


def largest(x: Tensor, length: Tensor) -> Tensor:
    """Return the largest value of each feature over the positions that are no padding, (B, D), of x (B, T, D)."""
    return x.where(present(length, x.shape[1])[:, :, None], -torch.inf).amax(1)


class TextCnn(nn.Module):
    """Convolutions over tokens, each followed by its largest output (Kim 2014, arXiv:1408.5882).

    A filter is centred at each token of the text, with zeros beyond its ends.

    Args:
        vocabulary: Number of tokens.
        size: D, features of a token's vector.
        filters: Number of filters of each of the `WIDTHS`.
        dropout: Rate on the vectors of tokens.
    """

    def __init__(self, vocabulary: int, size: int, filters: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, size)
        self.dropout = nn.Dropout(dropout)
        self.convolutions = nn.ModuleList(nn.Conv1d(size, filters, width) for width in WIDTHS)
        nn.init.uniform_(self.tokens.weight, -0.25, 0.25)  # as Kim's

    def forward(self, token: Tensor, length: Tensor) -> Tensor:
        """Map tokens, int64 (B, T), and their numbers, int64 (B,) and at least 1, to (B, 3 filters)."""
        inside = present(length, token.shape[1])[:, :, None]
        x = self.dropout(self.tokens(token)).where(inside, 0).transpose(1, 2)  # (B, D, T)
        found = [
            largest(layer(F.pad(x, ((width - 1) // 2, width // 2))).relu().transpose(1, 2), length)
            for width, layer in zip(WIDTHS, self.convolutions, strict=True)
        ]
        return torch.cat(found, 1)


class TextLstm(nn.Module):
    """LSTM layers in both directions, and the largest output of each feature (Conneau et al. 2017, 1705.02364).

    Args:
        vocabulary: Number of tokens.
        size: D, features of a token's vector and of a layer's outputs, an even number.
        layers: Number of layers.
        dropout: Rate on the input of each layer.
    """

    def __init__(self, vocabulary: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, size)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(BothDirections(nn.LSTM, size, size) for _ in range(layers))

    def forward(self, token: Tensor, length: Tensor) -> Tensor:
        """Map tokens, int64 (B, T), and their numbers, int64 (B,) and at least 1, to (B, D)."""
        x = self.tokens(token)
        for layer in self.layers:
            x = layer(self.dropout(x), length)
        return largest(x, length)
