"""The voice: characters -> durations, pitch and energy -> a log-mel spectrogram -> sound.

A convolutional network in the manner of FastSpeech 2 (Ren et al. 2021, arXiv:2006.04558) and SpeedySpeech
(Vainer and Dušek 2020, arXiv:2008.03802), which learns the durations itself (`alignment`). What is padding is zero
after each layer, so that nothing depends on a batch's padding.

Shapes: B recordings, T frames, N characters, M mel bands, D features.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Manifest
from components.tasks.speech_synthesis.params import AcousticParams, SynthesisParams
from components.tasks.speech_synthesis.prepare import SynthesisFacts
from components.tasks.speech_synthesis.spectra import Spectra
from components.tasks.speech_synthesis.vocoder import vocoder_of


def present(length: Tensor, most: int) -> Tensor:
    """Return whether each of `most` places is before the length (B,), float (B, most, 1)."""
    return (torch.arange(most, device=length.device) < length[:, None])[:, :, None].float()


class Convolutions(nn.Module):
    """Residual convolutions over characters or frames.

    Args:
        size: D.
        layers: Number of convolutions.
        kernel: Width of each.
        dropout: Rate after each.
    """

    def __init__(self, size: int, layers: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(layers))
        self.layers = nn.ModuleList(nn.Conv1d(size, size, kernel, padding=kernel // 2) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.last = nn.LayerNorm(size)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """Map (B, L, D) to the same; `inside` is 1 where there is no padding, (B, L, 1)."""
        for norm, layer in zip(self.norms, self.layers, strict=True):
            changed = layer((norm(x) * inside).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(changed.relu())
        normed: Tensor = self.last(x) * inside
        return normed


class Predictor(nn.Module):
    """A number for each character: its duration, pitch or energy.

    Args:
        size: D.
        dropout: Rate after the convolution.
    """

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.layers = Convolutions(size, 2, 3, dropout)
        self.output = nn.Linear(size, 1)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N), float32."""
        found: Tensor = self.output(self.layers(x, inside))[:, :, 0].float()
        return found


class Spoken(NamedTuple):
    """How characters are spoken, each (B, N), float32."""

    duration: Tensor
    """Logarithm of the number of frames."""
    pitch: Tensor
    """Logarithm, normalised; 0 is the voice's mean."""
    energy: Tensor
    """Mean of the normalised log-mel bands."""


class Voice(nn.Module):
    """Maps characters to sound.

    Args:
        facts: Facts about the recordings.
        params: Parameters of the networks.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, facts: SynthesisFacts, params: SynthesisParams) -> None:
        super().__init__()
        chosen: AcousticParams = params.train.model
        size, bands = chosen.size, facts.features.mels
        self.pitch_scale = facts.pitch
        self.spectra = Spectra(facts.rate, facts.features)
        self.register_buffer("mean", torch.tensor(facts.mean))
        self.register_buffer("std", torch.tensor(facts.std))
        self.embedding = nn.Embedding(len(facts.characters) + 2, size, padding_idx=0)
        self.encoder = Convolutions(size, chosen.encoder, chosen.kernel, chosen.dropout)
        self.means = nn.Linear(size, bands)
        self.duration, self.pitch, self.energy = (Predictor(size, chosen.dropout) for _ in range(3))
        self.prosody = nn.Conv1d(2, size, 3, padding=1)
        self.place = nn.Linear(3, size)
        self.decoder = Convolutions(size, chosen.decoder, chosen.kernel, 0)
        self.output = nn.Linear(size, bands)
        self.vocoder = vocoder_of(params.train.vocoder, bands, self.spectra)

    def normalised(self, power: Tensor) -> Tensor:
        """Map power (B, T, F) to the normalised log-mel spectrogram, float32 (B, T, M)."""
        return (self.spectra.bands(power) - self.mean) / self.std

    def encode(self, target: Tensor, length: Tensor) -> Tensor:
        """Return characters in their context, (B, N, D).

        Args:
            target: Characters, (B, N), int, zero-padded.
            length: (B,), int64.
        """
        inside = present(length, target.shape[1])
        encoded: Tensor = self.encoder(self.embedding(target.long()) * inside, inside)
        return encoded

    def spoken(self, encoded: Tensor, length: Tensor) -> Spoken:
        """Return how characters in their context, (B, N, D), are spoken."""
        inside = present(length, encoded.shape[1])
        return Spoken(*(each(encoded, inside) for each in (self.duration, self.pitch, self.energy)))

    def decode(self, encoded: Tensor, how: Spoken, found: Tensor, frames: Tensor) -> Tensor:
        """Return the normalised log-mel spectrogram, float32 (B, T, M).

        Args:
            encoded: Characters in their context, (B, N, D).
            how: How they are spoken; durations are not used.
            found: The character of each frame, int64 (B, T).
            frames: (B,), int64.
        """
        inside = present(frames, found.shape[1])
        encoded = encoded + self.prosody(torch.stack([how.pitch, how.energy], 1)).transpose(1, 2)
        x = encoded.gather(1, found[:, :, None].expand(-1, -1, encoded.shape[2]))
        x = (x + self.place(places(found, frames))) * inside
        decoded: Tensor = self.output(self.decoder(x, inside)).float() * inside
        return decoded


def places(found: Tensor, frames: Tensor) -> Tensor:
    """Return where each frame is in its character, (B, T, 3).

    These are the logarithms of its numbers of frames so far and to come, and the share of those so far.

    Args:
        found: The character of each frame, int64 (B, T).
        frames: (B,), int64.
    """
    most = found.shape[1]
    found = torch.where(torch.arange(most, device=found.device) < frames[:, None], found, -1)
    time = torch.arange(most, device=found.device).expand_as(found)
    changes = found[:, 1:] != found[:, :-1]
    first = torch.where(F.pad(changes, (1, 0), value=True), time, 0).cummax(1).values
    last = torch.where(F.pad(changes, (0, 1), value=True), time, most).flip(1).cummin(1).values.flip(1)
    before, after = (time - first + 1).float(), (last - time + 1).float()
    return torch.stack([before.log(), after.log(), before / (before + after)], 2)


def build_model(params: SynthesisParams, manifest: Manifest) -> nn.Module:
    """Build the networks for the prepared recordings, with random weights."""
    return Voice(SynthesisFacts.model_validate(manifest.facts), params)
