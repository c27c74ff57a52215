"""A recurrent encoder-decoder with attention: the small network beside the Transformer, with the same functions.

Gated recurrent units (Cho et al. 2014, arXiv:1406.1078) read the source in both directions (Bahdanau et al. 2015,
arXiv:1409.0473) and write the target, with the global attention of Luong et al. 2015 (arXiv:1508.04025, section
3.1). Its result is not fed into the next step, so that in training one call of a layer covers the whole target.

Shapes: B samples, T or S positions, D features.
"""

from typing import cast

import torch
from torch import Tensor, nn

from components import recurrent
from components.contracts import Batch
from components.text.networks.directions import BothDirections
from components.text.networks.transformer import present


class RecurrentEncoderDecoder(nn.Module):
    """Maps a source to the logits of each next token of a target; the functions are those of `EncoderDecoder`.

    The source, the target and the output share one embedding.

    Args:
        vocabulary: Number of tokens, of the source and the target together.
        size: D, an even number.
        layers: Number of layers of the encoder, and of the decoder.
        dropout: Rate, on the input of every layer and on the last output.
    """

    def __init__(self, vocabulary: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)
        self.encoder = nn.ModuleList(BothDirections(nn.GRU, size, size) for _ in range(layers))
        self.bridge = nn.Linear(size, layers * size)
        self.decoder = nn.ModuleList(nn.GRU(size, size, batch_first=True) for _ in range(layers))
        self.query = nn.Linear(size, size, bias=False)
        self.mix = nn.Linear(2 * size, size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, vocabulary, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, source: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Return the logits of the token after each of the target's, (B, T, vocabulary)."""
        memory = self.encode(source, length)
        x, _ = self._decoded(target, memory["start"])
        return self._logits(x, memory)

    def encode(self, source: Tensor, length: Tensor) -> Batch:
        """Return what the decoder reads of a source: `source` (B, S, D), its mask, and the first state (B, L D)."""
        x = self._embedded(source)
        for number, layer in enumerate(self.encoder):
            x = layer(self.dropout(x) if number else x, length)
        ends = torch.where(
            torch.arange(x.shape[2], device=x.device) < x.shape[2] // 2,
            x.take_along_dim(length[:, None, None] - 1, 1)[:, 0],  # of the layer that reads forwards
            x[:, 0],
        )
        start = torch.tanh(self.bridge(ends))
        return {"source": x, "mask": present(length, source.shape[1])[:, None], "start": start}

    def step(self, last: Tensor, memory: Batch, state: Batch) -> tuple[Tensor, Batch]:
        """Return the logits of the next token of K hypotheses a sample, (B, K, vocabulary), and the state after."""
        samples, beams = last.shape
        before = state["state"] if state else memory["start"][:, None].expand(-1, beams, -1)  # (B, K, L D)
        x, after = self._decoded(last.view(-1, 1), before.flatten(0, 1))
        return self._logits(x.view(samples, beams, -1), memory), {"state": after.view(samples, beams, -1)}

    def attention(self, source: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Return how much is read of each source token for the token after each of the target's, (B, T, S)."""
        memory = self.encode(source, length)
        x, _ = self._decoded(target, memory["start"])
        return self._weights(x, memory)

    def _embedded(self, tokens: Tensor) -> Tensor:
        size = self.embedding.embedding_dim
        return cast(Tensor, self.dropout(self.embedding(tokens) * size**0.5))

    def _decoded(self, target: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (B, T) and a state (B, L D) to the last layer's outputs (B, T, D) and the state after."""
        x, states = self._embedded(target), []
        for number, (layer, state) in enumerate(zip(self.decoder, start.chunk(len(self.decoder), 1), strict=True)):
            x, after = recurrent.apply(layer, self.dropout(x) if number else x, state[None].contiguous())
            states.append(after[0])
        return x, torch.cat(states, 1)

    def _weights(self, x: Tensor, memory: Batch) -> Tensor:
        source = memory["source"]
        logits = self.query(x) @ source.to(x.dtype).transpose(1, 2) / source.shape[2] ** 0.5  # (B, T, S)
        weights: Tensor = logits.float().where(memory["mask"], -torch.inf).softmax(2)
        return weights

    def _logits(self, x: Tensor, memory: Batch) -> Tensor:
        read = self._weights(x, memory).to(x.dtype) @ memory["source"].to(x.dtype)
        mixed = torch.tanh(self.mix(torch.cat([x, read], 2)))
        return cast(Tensor, self.output(self.dropout(mixed)))
