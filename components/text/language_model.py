"""A recurrent language model: embedding, recurrent layers, vocabulary."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_model
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.func import functional_call

from components import recurrent
from components.contracts import Batch
from components.errors import PedigreeError
from components.text import tokens
from components.text.params import Cell, DropoutParams, RecurrentParams


class PlainRNN(nn.Module):
    """The plain recurrent unit of textbooks (Elman 1990), where sigma is the logistic function.

    h_t = sigma(W_hh h_{t-1} + W_xh x_t + b_h), o_t = sigma(W_ho h_t + b_o)
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.xh = nn.Linear(inputs, hidden)
        self.weight_hh_l0 = nn.Parameter(torch.empty(hidden, hidden).uniform_(-(hidden**-0.5), hidden**-0.5))
        self.ho = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (B, T, inputs) and h (1, B, hidden) to o (B, T, hidden) and the last h."""
        state, states = h[0], []
        for projected in self.xh(x).unbind(1):
            state = torch.sigmoid(F.linear(state, self.weight_hh_l0) + projected)
            states.append(state)
        return torch.sigmoid(self.ho(torch.stack(states, 1))), state[None]


LAYERS: dict[Cell, type[nn.LSTM | nn.GRU | PlainRNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": PlainRNN}


GATES = {"lstm": 4, "gru": 3, "rnn": 1}
"""Number of matrices stacked in a cell's hidden-to-hidden weights."""
RECURRENT = "weight_hh_l0"
"""Name of the hidden-to-hidden weights of every cell in torch."""


class LanguageModel(nn.Module):
    """Predicts each next token, with the dropouts of AWD-LSTM (Merity et al. 2018, arXiv:1708.02182).

    Args:
        cell: Type of the recurrent layers.
        vocabulary: Number of tokens.
        embedding: Size of a token's vector.
        hidden: Sizes of the layers' states.
        tie: Share the embedding's weights with the output layer (Press and Wolf 2017, arXiv:1608.05859).
        dropout: Dropout rates, used in training only.
    """

    def __init__(
        self, cell: Cell, vocabulary: int, embedding: int, hidden: list[int], tie: bool, dropout: DropoutParams
    ) -> None:
        super().__init__()
        self.cell, self.dropout = cell, dropout
        self.embedding = nn.Embedding(vocabulary, embedding)
        inputs = [embedding, *hidden[:-1]]
        recurrent = LAYERS[cell]
        options = {} if recurrent is PlainRNN else {"batch_first": True}
        self.layers = nn.ModuleList(recurrent(i, h, **options) for i, h in zip(inputs, hidden, strict=True))
        self.output = nn.Linear(hidden[-1], vocabulary)
        nn.init.zeros_(self.output.bias)
        if tie:
            self.output.weight = self.embedding.weight
            nn.init.normal_(self.embedding.weight, std=embedding**-0.5)

    def forward(self, tokens: Tensor, state: Batch | None = None) -> tuple[Tensor, Batch]:
        """Map tokens, int64 (B, T), and a state to logits (B, T, vocabulary) and the state after the tokens.

        A state consists of named tensors (B, size); None means all zeros.
        """
        before: Batch = state or {}
        after: Batch = {}
        x = _locked(self._embedded(tokens), self._rate("input"))  # (B, T, embedding)
        for number, layer in enumerate(self.layers):
            x = _locked(x, self._rate("hidden")) if number else x
            names = [f"{part}{number}" for part in ("hc" if self.cell == "lstm" else "h")]
            size = layer.get_parameter(RECURRENT).shape[1]
            parts = [before[n][None] if n in before else x.new_zeros(1, len(x), size) for n in names]
            x, last = self._layer(layer, x, tuple(parts) if self.cell == "lstm" else parts[0])
            after |= {n: part[0] for n, part in zip(names, last if self.cell == "lstm" else [last], strict=True)}
        return self.output(_locked(x, self._rate("output"))), after

    def _rate(self, name: str) -> float:
        return cast(float, getattr(self.dropout, name)) if self.training else 0.0

    def _embedded(self, tokens: Tensor) -> Tensor:
        rate = self._rate("embedding")
        if not rate:
            return cast(Tensor, self.embedding(tokens))
        mask = F.dropout(torch.ones(len(self.embedding.weight), 1, device=tokens.device), rate)
        return F.embedding(tokens, self.embedding.weight * mask)

    def _layer(self, layer: nn.Module, x: Tensor, state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        call: Callable[..., tuple[Tensor, Any]] = layer
        if rate := self._rate("weight"):
            dropped = {RECURRENT: F.dropout(layer.get_parameter(RECURRENT), rate)}
            call = partial(_called, layer, dropped)
        return call(x, state) if isinstance(layer, PlainRNN) else recurrent.apply(call, x, state)


def built(params: RecurrentParams, vocabulary: int, dropout: DropoutParams) -> LanguageModel:
    """Return a network with random weights."""
    last = params.embedding if params.tie else params.hidden
    hidden = [params.hidden] * (params.layers - 1) + [last]
    return LanguageModel(params.cell, vocabulary, params.embedding, hidden, params.tie, dropout)


def load_characters(folder: Path) -> tuple[LanguageModel, Tokenizer]:
    """Return the network and the tokenizer of a saved language model of characters, in evaluation mode.

    Args:
        folder: A model's files: model.json and weights.safetensors.

    Raises:
        PedigreeError: it is no language model, or not one of characters.
    """
    saved = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    facts = saved["manifest"]["facts"]
    if saved["task"] != "language_model" or facts["kind"] != "char":
        what = f"{facts['kind']} tokens" if saved["task"] == "language_model" else f"task {saved['task']}"
        raise PedigreeError(
            f"{folder} has {what}, and characters are needed: name a version of a language model that was prepared "
            "with `prepare.tokenizer.name: char`"
        )
    train = saved["params"]["train"]
    params = RecurrentParams.model_validate(train["model"])
    model = built(params, facts["vocabulary"], DropoutParams.model_validate(train["dropout"]))
    load_model(model, folder / "weights.safetensors")
    return model.eval(), tokens.load(facts["tokenizer"])


def _called(layer: nn.Module, parameters: Batch, *inputs: Any) -> tuple[Tensor, Any]:
    """Call a layer with some of its parameters replaced."""
    return cast(tuple[Tensor, Any], functional_call(layer, parameters, inputs))


def _locked(x: Tensor, rate: float) -> Tensor:
    """Drop the same features of x (B, T, H) at every position (Gal and Ghahramani 2016, arXiv:1512.05287)."""
    return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), rate) if rate else x
