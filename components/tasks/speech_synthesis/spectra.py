"""Spectrograms of recordings: log-mel for the acoustic network, and magnitudes for the vocoder.

Shapes: B recordings, N samples, T frames, M mel bands, F frequencies.
"""

import torch
from torch import Tensor, nn

from components.sound.log_mel import LogMel
from components.sound.params import FeatureParams

FLOOR = 1e-7
"""Power that counts as silence: 70 dB below white noise at full scale."""
FULL_SCALE = 32768


class Spectra(nn.Module):
    """The short-time Fourier transform of recordings, and its bands.

    Args:
        rate: Samples per second.
        features: Bands, window and hop.
    """

    def __init__(self, rate: int, features: FeatureParams) -> None:
        super().__init__()
        self.log_mel = LogMel(rate, features)
        transform = self.log_mel.mel.spectrogram
        self.points: int = transform.n_fft
        self.hop: int = transform.hop_length
        self.window_length: int = transform.win_length

    @property
    def window(self) -> Tensor:
        """The Hann window, (window_length,)."""
        window: Tensor = self.log_mel.mel.spectrogram.window
        return window

    @property
    def frequencies(self) -> int:
        """F, the number of frequencies."""
        return self.points // 2 + 1

    def frames(self, length: Tensor) -> Tensor:
        """Return the number of frames of numbers of samples, (B,)."""
        return length // self.hop + 1

    def power(self, sound: Tensor) -> Tensor:
        """Map samples (B, N) on the scale of int16 to the power at each frequency, float32 (B, T, F)."""
        with torch.autocast(sound.device.type, enabled=False):
            spectrum = self.log_mel.mel.spectrogram(sound.float() / FULL_SCALE)  # (B, F, T), complex
            power: Tensor = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
            return power * self.log_mel.scale

    def bands(self, power: Tensor) -> Tensor:
        """Map power (B, T, F) to the log-mel spectrogram, (B, T, M), in nepers of amplitude."""
        with torch.autocast(power.device.type, enabled=False):
            mel: Tensor = self.log_mel.mel.mel_scale(power.transpose(1, 2))
            return logarithm(mel.transpose(1, 2))

    def magnitudes(self, logarithms: Tensor) -> Tensor:
        """Return the magnitudes of the transform, of which `logarithm` of `power` gave the logarithms."""
        found: Tensor = logarithms.exp() * float(self.log_mel.scale) ** -0.5
        return found


def logarithm(power: Tensor) -> Tensor:
    """Return the logarithm of the amplitude, in nepers, of power that is at least `FLOOR`."""
    return power.clamp(min=FLOOR).log() / 2
