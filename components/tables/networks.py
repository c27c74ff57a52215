"""Networks on the columns of a table: TabM with piecewise-linear embeddings, and the FT-Transformer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from rtdl_num_embeddings import PiecewiseLinearEmbeddings  # type: ignore[import-untyped]
from tabm import EnsembleView, LinearEnsemble, make_tabm_backbone  # type: ignore[import-untyped]
from torch import Tensor, nn

from components.tables.columns import SPECIAL, Column

ONE_HOT = 10
"""Most categories of a column for which each has an input of its own."""
WIDEST = 32
"""Most features of the vector of a category of any other column."""


def _divided(columns: Sequence[Column]) -> tuple[list[Column], list[Column]]:
    """Return the columns of numbers and those of categories."""
    return [each for each in columns if each.is_number], [each for each in columns if not each.is_number]


class Normal(nn.Module):
    """Maps numbers through quantiles of the training rows to scores of a standard normal distribution.

    Args:
        columns: The N columns of numbers.
    """

    quantiles: Tensor
    scores: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        size = max(len(column.quantiles) for column in columns)
        quantiles = [[*column.quantiles, *[math.inf] * (size - len(column.quantiles))] for column in columns]
        scores = [[*column.scores, *column.scores[-1:] * (size - len(column.scores))] for column in columns]
        self.register_buffer("quantiles", torch.tensor(quantiles, dtype=torch.float32))  # (N, Q)
        self.register_buffer("scores", torch.tensor(scores, dtype=torch.float32))  # (N, Q)

    def forward(self, number: Tensor) -> Tensor:
        """Return scores (B, N) of numbers (B, N), 0 for NaN; beyond the outermost quantiles, theirs."""
        known = torch.where(number.isnan(), self.quantiles[:, 0], number).T.contiguous()  # (N, B)
        last = self.quantiles.isfinite().sum(1, keepdim=True) - 1
        above = torch.searchsorted(self.quantiles, known).clamp(min=1).minimum(last)
        low, high = self.quantiles.gather(1, above - 1), self.quantiles.gather(1, above)
        share = ((known - low) / (high - low)).clamp(0, 1)
        scores = torch.lerp(self.scores.gather(1, above - 1), self.scores.gather(1, above), share)
        return torch.where(number.isnan(), 0.0, scores.T)


class Missing(nn.Module):
    """Returns a flag for each missing number of the columns that miss some in training."""

    places: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        places = [place for place, column in enumerate(columns) if column.missing]
        self.register_buffer("places", torch.tensor(places, dtype=torch.int64))

    def forward(self, number: Tensor) -> Tensor:
        """Return 1 or 0, (B, M), for numbers (B, N)."""
        return number[:, self.places].isnan().to(number.dtype)


class TabM(nn.Module):
    """An ensemble of perceptrons that share most of their weights.

    Numbers have piecewise-linear embeddings, whose bins lie between the quantiles of the training rows. A category
    is one of a column's inputs, or where there are over `ONE_HOT`, a vector. Source: Gorishniy et al. 2024,
    arXiv:2410.24210, in the authors' packages `tabm` and `rtdl_num_embeddings`.

    Args:
        columns: Columns of numbers and of categories.
        outputs: Outputs of each member.
        members: Number of perceptrons.
        size: Features of a layer.
        layers: Number of layers.
        dropout: Rate after each layer.
        embedding: Features of a number's embedding.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        outputs: int,
        *,
        members: int,
        size: int,
        layers: int,
        dropout: float,
        embedding: int,
    ) -> None:
        super().__init__()
        numbers, categories = _divided(columns)
        widths: list[int] = []
        self.number: nn.Module | None = None
        if numbers:
            self.normal, self.missing = Normal(numbers), Missing(numbers)
            bins = [torch.tensor(column.scores) for column in numbers]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a number with two values has one bin, which is right
                self.number = PiecewiseLinearEmbeddings(bins, embedding, activation=False, version="B")
            widths += [embedding] * len(numbers) + [1] * len(self.missing.places)
        self.sizes = [column.cardinality for column in categories]
        self.vectors = nn.ModuleDict()
        for place, cardinality in enumerate(self.sizes):
            if cardinality > ONE_HOT + SPECIAL:
                width = min(WIDEST, math.ceil(1.6 * cardinality**0.56))
                self.vectors[str(place)] = nn.Embedding(cardinality, width)
                widths.append(width)
            else:
                widths.append(cardinality)
        self.view = EnsembleView(k=members)
        self.backbone = make_tabm_backbone(
            d_in=sum(widths),
            n_blocks=layers,
            d_block=size,
            dropout=dropout,
            k=members,
            start_scaling_init="normal" if numbers else "random-signs",
            start_scaling_init_chunks=widths,
        )
        self.output = LinearEnsemble(size, outputs, k=members)

    def forward(self, number: Tensor | None, category: Tensor | None) -> Tensor:
        """Return the outputs of each member, (members, B, outputs).

        Args:
            number: float32 (B, numbers) with NaN for missing ones; None if there are no such columns.
            category: Indices, int (B, categories); None if there are no such columns.
        """
        parts: list[Tensor] = []
        if number is not None and self.number is not None:
            parts += [self.number(self.normal(number)).flatten(1), self.missing(number)]
        if category is not None:
            index = category.long()
            for place, cardinality in enumerate(self.sizes):
                own = index[:, place]
                key = str(place)
                vector = self.vectors[key](own) if key in self.vectors else F.one_hot(own, cardinality)
                parts.append(vector.to(torch.float32))
        features = self.backbone(self.view(torch.cat(parts, 1)))
        return cast(Tensor, self.output(features)).transpose(0, 1)


class FtTransformer(nn.Module):
    """Self-attention over a vector for each column and one that collects the answer.

    Source: Gorishniy et al. 2021, arXiv:2106.11959.

    Args:
        columns: Columns of numbers and of categories.
        outputs: Number of outputs.
        size: Features of a vector.
        layers: Number of layers.
        heads: Heads of attention.
        dropout: Rate in each layer.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        outputs: int,
        *,
        size: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        numbers, categories = _divided(columns)
        bound = size**-0.5
        self.answer = nn.Parameter(torch.empty(size).uniform_(-bound, bound))
        if numbers:
            self.normal = Normal(numbers)
            shape = (len(numbers), size)
            self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
            self.bias = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
            self.absent = nn.Parameter(torch.zeros(shape))
        self.vectors = nn.ModuleList(nn.Embedding(column.cardinality, size) for column in categories)
        for each in self.vectors:
            nn.init.uniform_(cast(nn.Embedding, each).weight, -bound, bound)
        layer = nn.TransformerEncoderLayer(
            size, heads, 2 * size, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.output = nn.Sequential(nn.LayerNorm(size), nn.ReLU(), nn.Linear(size, outputs))

    def forward(self, number: Tensor | None, category: Tensor | None) -> Tensor:
        """Return the outputs as those of one member, (1, B, outputs), given what `TabM` takes."""
        parts: list[Tensor] = []
        if number is not None:
            missing = number.isnan().to(number.dtype)[:, :, None]
            parts.append(self.normal(number)[:, :, None] * self.weight + self.bias + missing * self.absent)
        if category is not None:
            index = category.long()
            parts += [each(index[:, place])[:, None] for place, each in enumerate(self.vectors)]
        samples = len(parts[0])
        tokens = torch.cat([self.answer.expand(samples, 1, -1), *parts], 1)  # (B, 1 + columns, size)
        return cast(Tensor, self.output(self.layers(tokens)[:, 0]))[None]
