"""Augmentation, loss and predictions of a batch of clips."""

from functools import cache

import torch
from torch import Tensor, nn

from components.classification import loss
from components.contracts import Batch, StepOutput
from components.sound.augment import ANCHORS, BROWN, PINK, QUIETEST, coloured, equalised, warped, with_noise
from components.tasks.spoken_words.params import SpeechParams

LEVELS = (20, 10, 0)
"""Signal-to-noise ratios in dB at which evaluation repeats the predictions."""


def augment(batch: Batch, params: SpeechParams) -> Batch:
    """Change the speed of a batch of clips, shift, equalise and add noise, on the batch's device.

    Noise is synthetic: each clip has its own, of a colour between white and brown, at a level between `snr` and
    40 dB.

    Args:
        batch: `clip` (N, samples), int16 or float, and `label`, int64 (N,).
        params: `train.augment` selects the changes.

    Returns:
        The batch with new clips, float32, on the scale of the original ones.
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


def step(model: nn.Module, batch: Batch, params: SpeechParams) -> StepOutput:
    """Return a batch's loss and sums from `loss.outcome`; labels are smoothed in training only.

    Args:
        model: Maps clips (N, samples) to logits (N, words).
        batch: A batch of a split, or from `augment`.
        params: `train.label_smoothing` is used.
    """
    smoothing = params.train.label_smoothing if model.training else 0.0
    return loss.outcome(model(batch["clip"]), batch, smoothing)


def predict(model: nn.Module, batch: Batch, params: SpeechParams) -> Batch:
    """Return `logits`, float32 (N, words), and `label`, int64 (N,); the model is in eval mode.

    `logits_20db`, `logits_10db` and `logits_0db` are the logits of the same clips in pink noise, which is the same
    for all clips, so that results do not depend on the batch.
    """
    clip = batch["clip"].float()
    noise = fixed_noise(clip.shape[1], clip.device)
    predictions = loss.predictions(model(batch["clip"]), batch)
    for level in LEVELS:
        noisy = with_noise(clip, noise, clip.new_full((1, 1), level))
        predictions[f"logits_{level}db"] = model(noisy).detach().float()
    return predictions


@cache
def fixed_noise(samples: int, device: torch.device) -> Tensor:
    """Return pink noise (1, samples), the same each time; it is computed and copied to a device once."""
    white = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    return coloured(white, torch.tensor([[PINK]])).to(device)
