"""How a batch of clips is augmented, what its loss is, and what evaluation needs of it."""

import math

import torch
from torch import Tensor, nn

from components import classifier
from components.classifier import metrics
from components.contracts import Batch, StepOutput
from components.speech.params import SpeechParams

__all__ = ["augment", "metrics", "predict", "step"]

QUIETEST = 40.0
"""Signal-to-noise ratio in dB that training's noise begins with: hardly to be heard."""
LEVELS = (20, 10, 0)
"""Signal-to-noise ratios in dB at which evaluation listens again."""
ANCHORS, HIGHEST = 6, 8.0
"""Frequencies at which an equaliser is set, and about the highest one in units of 700 Hz, for their mel scale."""
PINK, BROWN = 1.0, 2.0
"""Slopes of noise: its power falls as 1 / frequency ** slope; white noise has slope 0."""


def augment(batch: Batch, params: SpeechParams) -> Batch:
    """Change the speed of a batch of clips, move them in time, equalise and add noise, on their device.

    Noise is made, not taken from files: each clip has its own, of a colour between white and brown, at a level
    between `snr` and 40 dB.

    Args:
        batch: `clip` (N, samples), int16 or float, and `label`, int64 (N,).
        params: `train.augment` says which changes are made.

    Returns:
        The batch with new clips, float32, on the scale of the given ones.
    """
    chosen, rate = params.train.augment, params.prepare.rate
    clip = batch["clip"].float()
    count, device = len(clip), clip.device
    if chosen.speed or chosen.shift:
        speed = 1 + chosen.speed * (2 * torch.rand(count, 1, device=device) - 1)
        shift = rate * chosen.shift * (2 * torch.rand(count, 1, device=device) - 1)
        clip = warped(clip, speed, shift)
    if chosen.equaliser:
        clip = equalised(clip, chosen.equaliser * (2 * torch.rand(count, ANCHORS, device=device) - 1))
    if chosen.snr is not None:
        slope = BROWN * torch.rand(count, 1, device=device)
        level = chosen.snr + (max(QUIETEST, chosen.snr) - chosen.snr) * torch.rand(count, 1, device=device)
        clip = with_noise(clip, coloured(torch.randn_like(clip), slope), level)
    return {**batch, "clip": clip}


def warped(clip: Tensor, speed: Tensor, shift: Tensor) -> Tensor:
    """Play each clip at another speed, pitch and formants going with it, and begin it later; outside it is zero.

    Between samples runs the cubic of Catmull and Rom (Keys 1981), one gather for each of its four points: for
    speeds all different, as resampling by filters is not. What it lets alias lies above 1 / speed of the band.

    Args:
        clip: (N, samples), float.
        speed: (N, 1), of the clip; 2 is an octave higher.
        shift: (N, 1), in samples; negative ones cut the beginning.
    """
    samples = clip.shape[1]
    place = (torch.arange(samples, device=clip.device) - shift) * speed  # (N, samples), in the given clip
    whole = place.floor()
    t, first = place - whole, whole.long()
    weights = (
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
    padded = torch.nn.functional.pad(clip, (1, 1))  # both ends hold the zeros that all places outside read
    points = (padded.gather(1, (first + k).clamp(0, samples + 1)) for k in range(4))
    return torch.stack([w * point for w, point in zip(weights, points, strict=True)]).sum(0)


def equalised(clip: Tensor, gain: Tensor) -> Tensor:
    """Strengthen some frequencies and weaken others, as another microphone or room does.

    After FilterAugment (Nam et al. 2022, arXiv:2110.03282), on the waveform.

    Args:
        clip: (N, samples), float.
        gain: (N, anchors) in dB, at frequencies from nought to the highest, equally far apart on the mel scale;
            between them it runs straight.
    """
    samples = clip.shape[1]
    # Longer by a quarter than the clip, so that what rings on at its end does not come round to its beginning.
    spectrum = torch.fft.rfft(clip, samples + samples // 4)  # (N, points)
    share = torch.linspace(0, 1, spectrum.shape[1], device=clip.device)
    place = torch.log1p(share * HIGHEST) / math.log1p(HIGHEST) * (gain.shape[1] - 1)
    lower = place.floor().long().clamp(max=gain.shape[1] - 2)
    curve = torch.lerp(gain[:, lower], gain[:, lower + 1], place - lower)  # (N, points)
    changed: Tensor = torch.fft.irfft(spectrum * 10 ** (curve / 20), samples + samples // 4)[:, :samples]
    return changed * _sounding(clip)


def _sounding(clip: Tensor) -> Tensor:
    """Return 1 from the first to the last sample that is not zero of clips (N, samples), and 0 before and after."""
    there: Tensor = (clip != 0).to(clip.dtype)
    begun, unfinished = there.cummax(1).values, there.flip(1).cummax(1).values.flip(1)
    return begun * unfinished


def coloured(white: Tensor, slope: Tensor) -> Tensor:
    """Return noise whose power falls as 1 / frequency ** slope from white noise (N, samples); slope is (N, 1)."""
    samples = white.shape[1]
    spectrum = torch.fft.rfft(white)  # (N, samples / 2 + 1)
    number = torch.arange(spectrum.shape[1], device=white.device).clamp(min=1)
    noise: Tensor = torch.fft.irfft(spectrum * number ** (-slope / 2), samples)
    return noise


def with_noise(clip: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Add noise to clips (N, samples) at a signal-to-noise ratio in dB, `level` (N, 1) or (1, 1).

    The signal's power is that of the samples that are not zero: silence put in at the ends is no part of it.
    """
    signal = clip.square().sum(1, keepdim=True) / (clip != 0).sum(1, keepdim=True).clamp(min=1)  # (N, 1)
    gain = (signal / noise.square().mean(1, keepdim=True).clamp(min=1e-12) * 10 ** (-level / 10)).sqrt()
    return clip + gain * noise


def step(model: nn.Module, batch: Batch, params: SpeechParams) -> StepOutput:
    """Return a batch's loss and sums, as `classifier.outcome` does; labels are smoothed in training alone.

    Args:
        model: Clips (N, samples) to logits (N, words).
        batch: From a split, or from `augment`.
        params: `train.label_smoothing` is used.
    """
    smoothing = params.train.label_smoothing if model.training else 0.0
    return classifier.outcome(model(batch["clip"]), batch, smoothing)


def predict(model: nn.Module, batch: Batch) -> Batch:
    """Return `logits`, float32 (N, words), and `label`, int64 (N,), on the CPU; the model is in eval mode.

    `logits_20db`, `logits_10db` and `logits_0db` are the answers to the same clips in pink noise: one and the same
    noise for all, so that they do not depend on the batch.
    """
    clip = batch["clip"].float()
    noise = fixed_noise(clip.shape[1]).to(clip.device)
    found = classifier.predictions(model(batch["clip"]), batch)
    for level in LEVELS:
        heard = with_noise(clip, noise, torch.tensor([[float(level)]], device=clip.device))
        found[f"logits_{level}db"] = model(heard).detach().float().cpu()
    return found


def fixed_noise(samples: int) -> Tensor:
    """Return pink noise (1, samples), the same each time."""
    white = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    return coloured(white, torch.tensor([[PINK]]))
