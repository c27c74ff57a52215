"""Log-mel spectrograms."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram  # type: ignore[import-untyped]

from components.sound.params import FeatureParams

FLOOR = 1e-4
"""Power of a band that counts as silence: 40 dB below white noise as strong as the clip's peak."""


class LogMel(nn.Module):
    """Log-mel spectrograms that do not depend on a clip's loudness; silence is zero.

    The mean over time is not subtracted from each band, as is usual to compensate for microphones, because padding
    and noise would affect it; training uses an equaliser instead. Spectrograms are computed in the network for each
    batch, as augmentation changes waveforms; docs/profile.md has their share of a step's time.

    Args:
        rate: Samples per second.
        params: Bands, window and hop.
    """

    def __init__(self, rate: int, params: FeatureParams) -> None:
        super().__init__()
        window = round(rate * params.window)
        points = _transform(rate, window, params.mels)
        self.mel = MelSpectrogram(
            rate,
            n_fft=points,
            win_length=window,
            hop_length=round(rate * params.hop),
            n_mels=params.mels,
            power=None,
            pad_mode="constant",
            norm="slaney",
        )
        # torch's window is a view of a longer tensor, which safetensors cannot save.
        hann = self.mel.spectrogram.window = self.mel.spectrogram.window.clone()
        # Scales white noise of power 1 to 1 in each band: a band's weights have unit area in Hz.
        self.scale = rate / points / float(hann.square().sum())

    def forward(self, clip: Tensor) -> Tensor:
        """Map clips (N, samples), int16 or float, to (N, frames, mels), float32; the last hop may be short."""
        with torch.autocast(clip.device.type, enabled=False):
            wave = clip.float()
            wave = wave / wave.abs().amax(1, keepdim=True).clamp(min=torch.finfo().tiny)  # (N, samples)
            loudness = (self.scale * self.power(wave) / FLOOR + 1).log()  # (N, mels, frames), in nepers of power
            return (loudness / 4).transpose(1, 2)  # (N, frames, mels), mostly between 0 and 2

    def power(self, wave: Tensor) -> Tensor:
        """Map waves (N, samples), float32, to the power in each band, (N, mels, frames)."""
        spectrum = self.mel.spectrogram(wave)  # (N, points / 2 + 1, frames), complex
        # Four times as fast as abs(), which guards against an overflow that cannot occur here.
        return cast(Tensor, self.mel.mel_scale(spectrum.real.square() + spectrum.imag.square()))


def _transform(rate: int, window: int, mels: int) -> int:
    """Return the number of points of the Fourier transform: a power of two for which no mel band is empty."""
    # The centre in Hz of the lowest, narrowest band: mel(f) = 2595 * log10(1 + f / 700).
    first: float = 700 * ((1 + rate / 1400) ** (1 / (mels + 1)) - 1)
    return 1 << (math.ceil(max(window, rate / first)) - 1).bit_length()
