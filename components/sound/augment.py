"""Random augmentation of batches of clips, on the batch's device."""

import math

import torch
from torch import Tensor, nn

QUIETEST = 40.0
"""Signal-to-noise ratio in dB of the weakest noise in training, which is barely audible."""


ANCHORS, HIGHEST = 6, 8.0
"""Number of frequencies at which an equaliser is set, and roughly the highest one in units of 700 Hz."""


PINK, BROWN = 1.0, 2.0
"""Slopes of coloured noise, whose power falls as 1 / frequency ** slope; white noise has slope 0."""


def warped(clip: Tensor, speed: Tensor, shift: Tensor) -> Tensor:
    """Change the speed of each clip, and with it pitch and formants, and shift it in time, filling with zeros.

    Samples are interpolated by Catmull-Rom cubics (Keys 1981) with one gather for each of their four points, which
    allows a different speed for each clip, unlike resampling filters. Only frequencies above 1 / speed of the band
    are aliased.

    Args:
        clip: (N, samples), float.
        speed: (N, 1), factor of the speed; 2 is an octave higher.
        shift: (N, 1), in samples; negative values cut the beginning.
    """
    samples = clip.shape[1]
    position = (torch.arange(samples, device=clip.device) - shift) * speed  # (N, samples), in the original clip
    before = position.floor()
    t, first = position - before, before.long()
    weights = (
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
    padded = torch.nn.functional.pad(clip, (1, 1))  # positions outside the clip read these zeros
    points = (padded.gather(1, (first + k).clamp(0, samples + 1)) for k in range(4))
    return torch.stack([w * point for w, point in zip(weights, points, strict=True)]).sum(0)


def equalised(clip: Tensor, gain: Tensor) -> Tensor:
    """Amplify some frequencies and attenuate others, as another microphone or room does.

    After FilterAugment (Nam et al. 2022, arXiv:2110.03282), on the waveform.

    Args:
        clip: (N, samples), float.
        gain: (N, anchors) in dB, at frequencies from zero to the highest, equally spaced on the mel scale, with
            linear interpolation between them.
    """
    samples = clip.shape[1]
    # A quarter longer than the clip, so that ringing at its end does not wrap around to its beginning.
    spectrum = torch.fft.rfft(clip, samples + samples // 4)  # (N, points)
    share = torch.linspace(0, 1, spectrum.shape[1], device=clip.device)
    position = torch.log1p(share * HIGHEST) / math.log1p(HIGHEST) * (gain.shape[1] - 1)
    lower = position.floor().long().clamp(max=gain.shape[1] - 2)
    curve = torch.lerp(gain[:, lower], gain[:, lower + 1], position - lower)  # (N, points)
    changed: Tensor = torch.fft.irfft(spectrum * 10 ** (curve / 20), samples + samples // 4)[:, :samples]
    return changed * _sounding(clip)


def _sounding(clip: Tensor) -> Tensor:
    """Return 1 from the first to the last non-zero sample of clips (N, samples), and 0 before and after."""
    nonzero: Tensor = (clip != 0).to(clip.dtype)
    after_first, before_last = nonzero.cummax(1).values, nonzero.flip(1).cummax(1).values.flip(1)
    return after_first * before_last


def coloured(white: Tensor, slope: Tensor) -> Tensor:
    """Filter white noise (N, samples) so that its power falls as 1 / frequency ** slope; slope is (N, 1)."""
    samples = white.shape[1]
    spectrum = torch.fft.rfft(white)  # (N, samples / 2 + 1)
    number = torch.arange(spectrum.shape[1], device=white.device).clamp(min=1)
    noise: Tensor = torch.fft.irfft(spectrum * number ** (-slope / 2), samples)
    return noise


def with_noise(clip: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Add noise to clips (N, samples) at a signal-to-noise ratio in dB, `level` (N, 1) or (1, 1).

    The signal's power is that of the non-zero samples, so that padding does not count.
    """
    signal = clip.square().sum(1, keepdim=True) / (clip != 0).sum(1, keepdim=True).clamp(min=1)  # (N, 1)
    gain = (signal / noise.square().mean(1, keepdim=True).clamp(min=1e-12) * 10 ** (-level / 10)).sqrt()
    return clip + gain * noise


class Stretch(nn.Module):
    """Changes the tempo of each clip without its pitch; speakers differ most in tempo.

    Args:
        share: Largest change of tempo: 0.5 is 50 to 150 %.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Map (N, 1, mels, frames) to the same shape, filling with silence, which is zero."""
        clips, _, mels, frames = spectrogram.shape
        tempo = 1 + self.share * (2 * torch.rand(clips, 1, device=spectrogram.device) - 1)
        position = torch.arange(frames, device=spectrogram.device) * tempo  # (N, frames), in the given spectrogram
        before = position.floor()
        padded = nn.functional.pad(spectrogram, (0, 1))

        def at(number: Tensor) -> Tensor:
            index = number.long().clamp(max=frames)[:, None, None]  # (N, 1, 1, frames)
            return padded.gather(3, index.expand(clips, 1, mels, frames))

        return torch.lerp(at(before), at(before + 1), (position - before)[:, None, None])


def masked(frames: Tensor, length: Tensor, bands: int, steps: int, masks: int = 2) -> Tensor:
    """Set random bands and random spans of time of spectrograms (N, T, bands) to zero, each mask at its own place.

    SpecAugment (Park et al. 2019, arXiv:1904.08779) for padded spectrograms, whose masks lie before the padding.

    Args:
        frames: The spectrograms; zero should be their mean.
        length: (N,), number of frames of each.
        bands: Largest number of bands under a mask.
        steps: Largest number of frames under a mask, at most half of a spectrogram.
        masks: Number of masks of each kind.
    """
    samples, most, every = frames.shape
    device = frames.device
    every_band = torch.full_like(length, every)

    def drawn(size: Tensor, limit: Tensor, places: int) -> Tensor:
        """Return whether each place is under none of the masks, (N, places)."""
        place, kept = (
            torch.arange(places, device=device),
            torch.ones(samples, places, dtype=torch.bool, device=device),
        )
        for _ in range(masks):
            width = (torch.rand(samples, device=device) * (limit + 1)).floor()
            first = (torch.rand(samples, device=device) * (size - width + 1)).floor()[:, None]
            kept &= (place < first) | (place >= first + width[:, None])
        return kept

    in_bands = drawn(every_band, every_band.clamp(max=bands), every)
    in_time = drawn(length, (length // 2).clamp(max=steps), most)
    return frames * (in_bands[:, None] & in_time[:, :, None])


def stretched(features: Tensor, tempo: Tensor) -> Tensor:
    """Change the tempo of features (N, T, D) by linear interpolation; tempo is (N, 1), and 2 is twice as fast."""
    position = torch.arange(features.shape[1], device=features.device) * tempo  # (N, T), in the given features
    before = position.floor()
    padded = nn.functional.pad(features, (0, 0, 0, 1))

    def at(number: Tensor) -> Tensor:
        index = number.long().clamp(max=features.shape[1])[:, :, None]
        return padded.gather(1, index.expand(-1, -1, features.shape[2]))

    return torch.lerp(at(before), at(before + 1), (position - before)[:, :, None])
