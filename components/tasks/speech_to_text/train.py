"""Augmentation, loss and validation of a batch of recordings, and the predictions that evaluation needs."""

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from components.contracts import Batch, Better, StepOutput
from components.sound import augment as changes
from components.sound import ctc
from components.sound.augment import BROWN, PINK, QUIETEST, coloured, with_noise
from components.tasks.speech_to_text import decoding
from components.tasks.speech_to_text.model import Recogniser, present
from components.tasks.speech_to_text.params import RecognitionParams

BETTER: Mapping[str, Better] = {"loss": "less", "token_error_rate": "less"}
"""Validation metrics, and whether less or more is better."""
LEVELS = (20, 10, 0)
"""Signal-to-noise ratios in dB at which evaluation repeats the predictions."""


def augment(batch: Batch, params: RecognitionParams) -> Batch:
    """Change the speed of a batch of recordings and add noise, on the batch's device; of cepstra, the tempo alone.

    Noise is synthetic: each recording has its own, of a colour between white and brown, at a level between `snr`
    and 40 dB.

    Args:
        batch: `sound`, samples (B, N) or cepstra (B, T, 13), with `sound_length`, and `target`.
        params: `train.augment` selects the changes.

    Returns:
        The batch with new sound, float32, which may be longer.
    """
    chosen, sound, length = params.train.augment, batch["sound"].float(), batch["sound_length"]
    count, device = len(sound), sound.device
    if chosen.speed:
        speed = 1 + chosen.speed * (2 * torch.rand(count, 1, device=device) - 1)
        # As much as the slowest could need: how much they do need, only the GPU knows.
        room = int(sound.shape[1] / (1 - chosen.speed)) + 1 - sound.shape[1]
        padding = (0, room) if sound.ndim == 2 else (0, 0, 0, room)
        sound = nn.functional.pad(sound, padding)
        sound = (
            changes.warped(sound, speed, speed.new_zeros(1)) if sound.ndim == 2 else changes.stretched(sound, speed)
        )
        length = (length / speed[:, 0]).long().clamp(min=1, max=sound.shape[1])
    if chosen.snr is not None and sound.ndim == 2:
        slope = BROWN * torch.rand(count, 1, device=device)
        level = chosen.snr + (max(QUIETEST, chosen.snr) - chosen.snr) * torch.rand(count, 1, device=device)
        size = 1 << (sound.shape[1] - 1).bit_length()  # of which a Fourier transform is fast
        noise = coloured(torch.randn(count, size, device=device), slope)[:, : sound.shape[1]]
        noisy = with_noise(sound, noise, level)
        sound = noisy * present(length, sound.shape[1])
    return {**batch, "sound": sound, "sound_length": length}


def step(model: nn.Module, batch: Batch, params: RecognitionParams) -> StepOutput:
    """Return the summed CTC loss of a batch in nats, and in validation the errors of the likeliest path.

    Both are divided by the number of tokens. In training, a recording that a change of speed made too short for its
    text has no loss.

    Args:
        model: A `Recogniser`.
        batch: `sound` and `target`, zero-padded, and their lengths, int64 (B,).
        params: Unused.
    """
    log_probs, frames = model(batch["sound"], batch["sound_length"])
    losses = _losses(log_probs, frames, batch, log_probs.shape[2] - 1)
    count = batch["target_length"].sum()
    if model.training:
        return StepOutput(losses.sum(), count)
    wrong = ctc.errors(log_probs, frames, batch["target"].long(), batch["target_length"], log_probs.shape[2] - 1)
    return StepOutput(losses.double().sum(), count, {"token_error_rate": wrong.sum().double()})


def _losses(log_probs: Tensor, frames: Tensor, batch: Batch, blank: int) -> Tensor:
    with torch.autocast(log_probs.device.type, enabled=False):
        return ctc.loss(log_probs, frames, batch["target"].long(), batch["target_length"], blank)


def predict(model: nn.Module, batch: Batch, params: RecognitionParams) -> Batch:
    """Return the best text of each recording, how sure it is, and how probable the reference is.

    Args:
        model: A `Recogniser`.
        batch: As for `step`.
        params: `evaluate.search` is used.

    Returns:
        `text`, int64 (B, U), zero-padded tokens, with `text_length`; its `confidence`, float64 (B,); the
        `loss` of the reference, float64 (B,), the sum in nats. Of sound, also `text_20db` and so on with their
        lengths: the likeliest path in pink noise, which is the same for all recordings.
    """
    assert isinstance(model, Recogniser), "predictions need its tokens"
    log_probs, frames = model(batch["sound"], batch["sound_length"])
    found = decoding.best(model, log_probs, frames, params.evaluate.search)
    losses = _losses(log_probs, frames, batch, model.blank)
    rows, lengths = log_probs.cpu(), frames.cpu().tolist()
    confidence = [
        decoding.timed(model, own[:length], ids, 1)[1]
        for own, length, ids in zip(rows, lengths, found, strict=True)
    ]
    predictions = {
        **_padded("text", found),
        "confidence": torch.tensor(confidence, dtype=torch.float64),
        "loss": losses.double(),
    }
    if batch["sound"].ndim == 2:
        for level in LEVELS:
            noisy, lengths_in_noise = model(*in_noise(batch["sound"], batch["sound_length"], level))
            predictions |= _padded(f"text_{level}db", ctc.greedy(noisy, lengths_in_noise, model.blank))
    return predictions


def _padded(name: str, texts: Sequence[Sequence[int]]) -> Batch:
    length = torch.tensor([len(ids) for ids in texts])
    rows = torch.zeros(len(texts), max(1, int(length.max())), dtype=torch.int64)
    for row, ids in zip(rows, texts, strict=True):
        row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return {name: rows, f"{name}_length": length}


def in_noise(sound: Tensor, length: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Return samples (B, N) in pink noise at a signal-to-noise ratio in dB, and their lengths.

    The noise of a sample depends on its place alone, so that padding changes nothing.
    """
    inside = present(length, sound.shape[1])
    signal = sound.float().square().sum(1, keepdim=True) / length[:, None]  # (B, 1)
    period = _pink(sound.device)
    noise = period.repeat(1, -(-sound.shape[1] // period.shape[1]))[:, : sound.shape[1]]
    return (sound.float() + (signal * 10 ** (-level / 10)).sqrt() * noise) * inside, length


@cache
def _pink(device: torch.device) -> Tensor:
    """Return pink noise of power 1, (1, N), the same each time; longer sounds have it several times."""
    white = torch.randn(1, 2**18, generator=torch.Generator().manual_seed(0))
    noise = coloured(white, torch.tensor([[PINK]]))
    return (noise / noise.square().mean().sqrt()).to(device)
