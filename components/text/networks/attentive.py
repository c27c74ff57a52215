"""LSTMs that read a question and a context with attention, after DrQA (Chen et al. 2017, arXiv:1704.00051).

Shapes: B samples, T positions, D features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.text.networks.directions import BothDirections
from components.text.networks.transformer import present


class AttentiveLstm(nn.Module):
    """Makes a vector of each token of a question and its context.

    As in DrQA, a token's input is its vector, the vectors of the question's tokens that resemble it most (its
    aligned question embedding), and whether the question has it, too; and its output is multiplied with a weighted
    mean of the question's outputs. Unlike there, one LSTM reads the question and then the context.

    Args:
        vocabulary: Number of tokens.
        size: D, features of a token's vector and of a layer's outputs, an even number.
        layers: Number of layers.
        dropout: Rate on the input of each layer.
    """

    def __init__(self, vocabulary: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, size)
        nn.init.normal_(self.tokens.weight, std=size**-0.5)
        self.projected = nn.Linear(size, size)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            BothDirections(nn.LSTM, size if number else 2 * size + 1, size) for number in range(layers)
        )
        self.weighted = nn.Linear(size, 1)
        self.turned = nn.Linear(size, size)

    def forward(self, token: Tensor, length: Tensor, first: Tensor) -> Tensor:
        """Return the vector of each token, (B, T, 2 D); those after a sample's end mean nothing.

        Args:
            token: Ids, int64 (B, T), the question's before the context's.
            length: Number of each sample's tokens, int64 (B,).
            first: How many of them are the question's, int64 (B,), at least 1.
        """
        asked = present(first, token.shape[1])  # (B, T)
        x = self.dropout(self.tokens(token))  # (B, T, D)
        alike = F.relu(self.projected(x))
        aligned = F.scaled_dot_product_attention(alike, alike, x, asked[:, None])  # (B, T, D)
        same = ((token[:, :, None] == token[:, None]) & asked[:, None]).any(2, keepdim=True)  # (B, T, 1)
        x = torch.cat([x, aligned, same.to(x.dtype)], 2)
        for number, layer in enumerate(self.layers):
            x = layer(self.dropout(x) if number else x, length)
        weight = self.weighted(x).masked_fill(asked.logical_not()[:, :, None], -torch.inf).softmax(1)  # (B, T, 1)
        question = self.turned((weight * x).sum(1, keepdim=True))  # (B, 1, D)
        return torch.cat([x, x * question], 2)
