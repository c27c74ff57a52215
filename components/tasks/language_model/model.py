"""Builds a recurrent language model for a prepared text, and initialises its gates."""

from torch import nn

from components.contracts import Manifest
from components.tasks.language_model.params import LanguageParams
from components.tasks.language_model.prepare import LanguageFacts
from components.text import language_model
from components.text.language_model import GATES, RECURRENT


def build_model(params: LanguageParams, manifest: Manifest) -> nn.Module:
    """Build a randomly initialised network for the prepared text."""
    facts = LanguageFacts.model_validate(manifest.facts)
    chosen = params.train.model
    model = language_model.built(chosen, facts.vocabulary, params.train.dropout)
    for layer in model.layers:
        if chosen.orthogonal:
            for gate in layer.get_parameter(RECURRENT).detach().chunk(GATES[chosen.cell]):
                nn.init.orthogonal_(gate)
        if isinstance(layer, nn.LSTM):
            _open_forget_gate(layer, chosen.forget_bias)
    return model


def _open_forget_gate(layer: nn.LSTM, bias: float) -> None:
    """Set all biases to zero except the forget gate's (Gers et al. 2000; Jozefowicz et al. 2015)."""
    for name, parameter in layer.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
    gates = layer.get_parameter("bias_ih_l0").detach().chunk(4)  # input, forget, cell, output
    nn.init.constant_(gates[1], bias)
