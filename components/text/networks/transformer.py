"""The Transformer (Vaswani et al. 2017, arXiv:1706.03762): an encoder, and an encoder-decoder.

The norms come before the layers (Xiong et al. 2020, arXiv:2002.04745), so that training needs little warm-up.
Attention is `F.scaled_dot_product_attention`. Dropout acts on embeddings and on what a layer adds, not on attention
weights, with which torch's fast kernels could not be used.

Shapes: B samples, T or S positions, D features of a position, H heads, E = D / H features of a head.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Batch


def present(length: Tensor, positions: int) -> Tensor:
    """Return which positions are no padding, bool (B, positions), given the lengths, int64 (B,)."""
    return torch.arange(positions, device=length.device) < length[:, None]


def waves(first: int, count: int, size: int, device: torch.device) -> Tensor:
    """Return the sinusoidal encodings of `count` positions from `first` on, float32 (count, size); size is even."""
    rates = torch.exp(torch.arange(size // 2, device=device) * (-math.log(10_000) / (size // 2)))
    angles = torch.arange(first, first + count, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Embedding(nn.Module):
    """Token vectors plus the encodings of their positions, with dropout.

    Args:
        vocabulary: Number of tokens.
        size: D, an even number.
        dropout: Rate.
    """

    def __init__(self, vocabulary: int, size: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, size)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.tokens.weight, std=size**-0.5)

    def forward(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Map tokens, int64 (B, T), of which the first is at position `first`, to (B, T, D)."""
        size = self.tokens.embedding_dim
        x = self.tokens(tokens) * math.sqrt(size)
        return cast(Tensor, self.dropout(x + waves(first, tokens.shape[1], size, tokens.device)))


class Attention(nn.Module):
    """Multi-head attention whose keys and values are projected separately, so that a decoder can cache them.

    Args:
        size: D, a multiple of `heads`.
        heads: H.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)
        self.output = nn.Linear(size, size)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project what is attended to, (B, S, D), to its keys and values, both (B, H, S, E)."""
        key, value = self.key_value(x).chunk(2, -1)
        return self._heads(key), self._heads(value)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attend from x (B, T, D) to keys and values (B, H, S, E), and return (B, T, D).

        Args:
            x: The positions that attend.
            keys: From `keys_values`.
            values: Likewise.
            mask: Which positions are attended to, bool (B, 1, 1, S); None: all.
            causal: Whether a position attends only to itself and earlier ones; needs S = T and no mask.
        """
        query = self._heads(self.query(x))
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal)
        return cast(Tensor, self.output(mixed.transpose(1, 2).flatten(2)))

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weights with which `forward` mixes values, averaged over heads: (B, T, S)."""
        query = self._heads(self.query(x))
        logits = query @ keys.transpose(2, 3) / math.sqrt(query.shape[3])  # (B, H, T, S)
        if mask is not None:
            logits = logits.where(mask, -torch.inf)
        weights: Tensor = logits.softmax(-1).mean(1)
        return weights

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, T, E)


class FeedForward(nn.Sequential):
    """Two linear layers at each position: D to `inner` and back."""

    def __init__(self, size: int, inner: int) -> None:
        super().__init__(nn.Linear(size, inner), nn.ReLU(), nn.Linear(inner, size))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each after a norm and with a residual connection."""

    def __init__(self, size: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(size), Attention(size, heads)
        self.forward_norm, self.feed_forward = nn.LayerNorm(size), FeedForward(size, inner)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x (B, T, D) to (B, T, D); `mask`, bool (B, 1, 1, T), says which positions are no padding."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, *self.attention.keys_values(normed), mask))
        return cast(Tensor, x + self.dropout(self.feed_forward(self.forward_norm(x))))


class Encoder(nn.Module):
    """Embedding, layers and a last norm.

    Args:
        vocabulary: Number of tokens.
        size: D, an even multiple of `heads`.
        heads: H.
        inner: Size of the feed-forward networks' inner layer.
        layers: Number of layers.
        dropout: Rate.
    """

    def __init__(self, vocabulary: int, size: int, heads: int, inner: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = Embedding(vocabulary, size, dropout)
        self.layers = nn.ModuleList(EncoderLayer(size, heads, inner, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.apply(_initialise)

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        """Map tokens, int64 (B, T), and their numbers, int64 (B,) and at least 1, to (B, T, D)."""
        mask = present(length, tokens.shape[1])[:, None, None]
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, mask)
        return cast(Tensor, self.norm(x))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the source, and a feed-forward network."""

    def __init__(self, size: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(size), Attention(size, heads)
        self.source_norm, self.source = nn.LayerNorm(size), Attention(size, heads)
        self.forward_norm, self.feed_forward = nn.LayerNorm(size), FeedForward(size, inner)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Map x (B, T, D), given the source's keys and values (B, H, S, E) and its mask, bool (B, 1, 1, S)."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, *self.attention.keys_values(normed), causal=True))
        return self._rest(x, keys, values, mask)

    def step(
        self, x: Tensor, cache: tuple[Tensor, Tensor] | None, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map the next position of K hypotheses a sample, (B, K, D), and return it with the extended cache.

        Args:
            x: The position, which comes after those in the cache.
            cache: Keys and values of the earlier positions, both (B, K, H, T, E); None at the first one.
            keys: The source's, (B, H, S, E): as the K hypotheses share them, they attend as K positions would.
            values: Likewise.
            mask: The source's, bool (B, 1, 1, S).
        """
        samples, beams, size = x.shape
        normed = self.attention_norm(x).view(samples * beams, 1, size)
        key, value = self.attention.keys_values(normed)  # (B K, H, 1, E)
        if cache is not None:
            key = torch.cat([cache[0].flatten(0, 1), key], 2)
            value = torch.cat([cache[1].flatten(0, 1), value], 2)
        x = x + self.attention(normed, key, value).view(samples, beams, size)
        rows = (samples, beams)
        return self._rest(x, keys, values, mask), (key.unflatten(0, rows), value.unflatten(0, rows))

    def _rest(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.source(self.source_norm(x), keys, values, mask))
        return cast(Tensor, x + self.dropout(self.feed_forward(self.forward_norm(x))))


class EncoderDecoder(nn.Module):
    """Maps a source to the logits of each next token of a target.

    The source, the target and the output share one embedding (Press and Wolf 2017, arXiv:1608.05859).

    Args:
        vocabulary: Number of tokens, of the source and the target together.
        size: D, an even multiple of `heads`.
        heads: H.
        inner: Size of the feed-forward networks' inner layer.
        layers: Number of layers of the encoder, and of the decoder.
        dropout: Rate.
    """

    def __init__(self, vocabulary: int, size: int, heads: int, inner: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(vocabulary, size, heads, inner, layers, dropout)
        self.layers = nn.ModuleList(DecoderLayer(size, heads, inner, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.output = nn.Linear(size, vocabulary, bias=False)
        self.layers.apply(_initialise)
        self.output.weight = self.encoder.embedding.tokens.weight

    def forward(self, source: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Return the logits of the token after each of the target's, (B, T, vocabulary).

        Args:
            source: int64 (B, S).
            length: Number of the source's tokens, int64 (B,), at least 1.
            target: int64 (B, T); padding at its end changes nothing before it.
        """
        memory = self.encode(source, length)
        x = self.encoder.embedding(target)
        for number, layer in enumerate(self.layers):
            x = layer(x, memory[f"key{number}"], memory[f"value{number}"], memory["mask"])
        return cast(Tensor, self.output(self.norm(x)))

    def encode(self, source: Tensor, length: Tensor) -> Batch:
        """Return what the decoder reads of a source: each layer's keys and values (B, H, S, E), and the mask."""
        x = self.encoder(source, length)
        memory = {"mask": present(length, source.shape[1])[:, None, None]}
        for number, layer in enumerate(self.layers):
            memory[f"key{number}"], memory[f"value{number}"] = cast(DecoderLayer, layer).source.keys_values(x)
        return memory

    def step(self, last: Tensor, memory: Batch, state: Batch) -> tuple[Tensor, Batch]:
        """Return the logits of the next token of K hypotheses a sample, (B, K, vocabulary), and the state after.

        Args:
            last: Each hypothesis' last token, int64 (B, K).
            memory: From `encode`.
            state: Empty at first, then that of the step before: keys and values of the earlier positions,
                (B, K, H, T, E).
        """
        first = state["key0"].shape[3] if state else 0
        x = self.encoder.embedding(last.view(-1, 1), first).view(*last.shape, -1)  # (B, K, D)
        after: Batch = {}
        for number, layer in enumerate(self.layers):
            key, value = f"key{number}", f"value{number}"
            cache = (state[key], state[value]) if state else None
            x, (after[key], after[value]) = cast(DecoderLayer, layer).step(
                x, cache, memory[key], memory[value], memory["mask"]
            )
        return self.output(self.norm(x)), after

    def attention(self, source: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Return how much the last layer attends to each source token for the token after each target's, (B, T, S).

        Arguments are those of `forward`; the weights are averaged over heads.
        """
        memory = self.encode(source, length)
        x = self.encoder.embedding(target)
        *before, last = cast(list[DecoderLayer], list(self.layers))
        for number, layer in enumerate(before):
            x = layer(x, memory[f"key{number}"], memory[f"value{number}"], memory["mask"])
        normed = last.attention_norm(x)
        x = x + last.attention(normed, *last.attention.keys_values(normed), causal=True)
        return last.source.weights(last.source_norm(x), memory[f"key{len(before)}"], memory["mask"])


def _initialise(module: nn.Module) -> None:
    """Initialise a linear layer as Vaswani et al.'s tensor2tensor does: Xavier's uniform weights, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
