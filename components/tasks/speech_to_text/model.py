"""The recogniser: convolutions over a spectrogram, layers over time, and a distribution over tokens for each frame.

Two convolutions make one frame of four, as in Deep Speech 2 (Amodei et al. 2016, arXiv:1512.02595). Over time go
LSTMs in both directions (Graves et al. 2013, arXiv:1303.5778) or torchaudio's Conformer (Gulati et al. 2020,
arXiv:2005.08100). What is padding is zero after each layer, so that answers do not depend on a batch's padding.

Shapes: B recordings, T frames, M mel bands, D features, C tokens and the blank.
"""

from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torchaudio.models import Conformer  # type: ignore[import-untyped]

from components.contracts import Manifest, Sources
from components.sound import augment
from components.sound.cepstra import Spectrum
from components.sound.log_mel import LogMel
from components.tasks.speech_to_text.params import AugmentParams, ModelParams, RecognitionParams
from components.tasks.speech_to_text.prepare import RecognitionFacts
from components.text import language_model, ngrams, tokens
from components.text.language_model import LanguageModel
from components.text.networks.directions import BothDirections

CHANNELS = (32, 64)
KERNEL = 15
"""Frames of the Conformer's convolutions."""
LANGUAGE_MODEL = "train.language_model"
"""The parameter that names a language model."""


class LstmLayers(nn.Module):
    """LSTMs in both directions.

    Args:
        inputs: Features of a frame.
        params: Size, number of layers and dropout.
    """

    def __init__(self, inputs: int, params: ModelParams) -> None:
        super().__init__()
        sizes = [inputs] + [params.size] * (params.layers - 1)
        self.layers = nn.ModuleList(BothDirections(nn.LSTM, size, params.size) for size in sizes)
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, D)."""
        for number, layer in enumerate(self.layers):
            x = layer(self.dropout(x) if number else x, frames)
        return cast(Tensor, self.dropout(x))


class ConformerLayers(nn.Module):
    """torchaudio's Conformer, whose convolutions see no padding; its attention sees none already.

    Args:
        inputs: Features of a frame.
        params: Size, number of layers, heads and dropout.
    """

    def __init__(self, inputs: int, params: ModelParams) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, params.size)
        self.dropout = nn.Dropout(params.dropout)
        sizes = (params.size, params.heads, params.inner, params.layers, KERNEL)
        self.layers = Conformer(*sizes, dropout=params.dropout)
        for module in self.layers.modules():
            if isinstance(module, nn.Conv1d) and module.kernel_size[0] > 1:
                module.register_forward_pre_hook(self._without_padding)
        self._inside = torch.ones(1)

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, D)."""
        inside = present(frames, x.shape[1])  # (B, T)
        self._inside = inside[:, None]
        x = self.dropout(self.enter(x)).transpose(0, 1)  # (T, B, D)
        for layer in self.layers.conformer_layers:  # its own forward would wait for a GPU, to find the most frames
            x = layer(x, inside.logical_not())
        return x.transpose(0, 1)

    def _without_padding(self, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0] * self._inside


class Recogniser(nn.Module):
    """Maps sound, or cepstra in its place, to log-probabilities of tokens.

    Args:
        facts: Facts about the recordings.
        params: Parameters of the network.
        changes: Masks, in training only.
    """

    def __init__(self, facts: RecognitionFacts, params: ModelParams, changes: AugmentParams) -> None:
        super().__init__()
        self.hop, self.blank = round(facts.rate * facts.features.hop), facts.vocabulary
        self.mask = changes.frequency_mask, changes.time_mask
        self.tokenizer: Tokenizer = tokens.load(facts.tokenizer)
        self.ngrams = ngrams.parsed(facts.ngrams) if facts.ngrams else None
        # In a tuple, as a module by itself would be a part of this network's weights.
        self.language_model: tuple[LanguageModel, Tokenizer] | None = None
        bands = facts.features.mels
        self.spectrum = LogMel(facts.rate, facts.features) if facts.kind == "audio" else Spectrum(bands)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(own, filters, 3, stride=2, padding=1)
            for own, filters in zip((1, CHANNELS[0]), CHANNELS, strict=True)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(filters) if params.batch_norm else nn.Identity() for filters in CHANNELS
        )
        inputs = CHANNELS[1] * -(-bands // 4)
        self.over_time = (LstmLayers if params.network == "lstm" else ConformerLayers)(inputs, params)
        self.output = nn.Linear(params.size, facts.vocabulary + 1)

    def frames(self, sound: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spectrograms, (B, T, M), and their numbers of frames, (B,); arguments as for `forward`."""
        if sound.ndim == 2:
            return self.spectrum(sound), length // self.hop + 1
        return self.spectrum(sound), length

    def forward(self, sound: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities, float32 (B, T / 4, C), the last of which is the blank, and their numbers.

        Args:
            sound: Samples (B, N) of any scale, or cepstra (B, T, 13); zero-padded.
            length: (B,), int64: how many of them are no padding.
        """
        x, frames = self.frames(sound, length)
        x = normalised(x, frames)
        if self.training:
            x = augment.masked(x, frames, *self.mask)
        x = x[:, None]  # (B, 1, T, M)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x, frames = norm(convolution(x)).relu(), (frames + 1) // 2
            x = x * present(frames, x.shape[2])[:, None, :, None]
        x = x.permute(0, 2, 3, 1).flatten(2)  # (B, T / 4, M / 4 * 64)
        logits = self.output(self.over_time(x, frames))
        return logits.float().log_softmax(2), frames


def attach(model: nn.Module, params: RecognitionParams, sources: Sources) -> None:
    """Give the network the language model that the search weighs texts with, if parameters name one.

    Raises:
        PedigreeError: it is not one of characters.
    """
    assert isinstance(model, Recogniser), "the task builds no other"
    if LANGUAGE_MODEL in sources:
        model.language_model = language_model.load_characters(sources[LANGUAGE_MODEL])


def present(length: Tensor, most: int) -> Tensor:
    """Return whether each of `most` places is before the length (B,), bool (B, most)."""
    return torch.arange(most, device=length.device) < length[:, None]


def normalised(x: Tensor, frames: Tensor) -> Tensor:
    """Return spectrograms whose bands have mean 0 and variance 1 in each recording, and whose padding is zero."""
    inside = present(frames, x.shape[1])[:, :, None].to(x.dtype)  # (B, T, 1)
    count = frames[:, None, None]
    centred = (x - (x * inside).sum(1, keepdim=True) / count) * inside
    variance = centred.square().sum(1, keepdim=True) / count
    return centred * (variance + 1e-4).rsqrt()


def build_model(params: RecognitionParams, manifest: Manifest) -> nn.Module:
    """Build the network for the prepared recordings, with random weights."""
    facts = RecognitionFacts.model_validate(manifest.facts)
    return Recogniser(facts, params.train.model, params.train.augment)
