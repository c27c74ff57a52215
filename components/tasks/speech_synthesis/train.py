"""Loss and validation of a batch of recordings, and the predictions that evaluation needs."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Batch, Better, StepOutput
from components.tasks.speech_synthesis import alignment
from components.tasks.speech_synthesis.model import Spoken, Voice, present
from components.tasks.speech_synthesis.params import SynthesisParams
from components.tasks.speech_synthesis.spectra import FULL_SCALE
from components.tasks.speech_synthesis.synthesis import synthesised

BETTER: Mapping[str, Better] = {"loss": "less", "mel_error": "less"}
"""Validation metrics, and whether less or more is better."""
SEGMENT = 32
"""Frames of each recording from which the vocoder learns in an update."""
ALIGNMENT, PROSODY = 1.0, 0.1
"""Weights of the forward-sum loss, and of those of duration, pitch and energy, beside the spectrogram's."""


class Aligned(NamedTuple):
    """A batch of recordings, aligned with their characters."""

    x: Tensor
    """Normalised log-mel spectrograms, (B, T, M)."""
    power: Tensor
    """(B, T, F)."""
    frames: Tensor
    """(B,)."""
    encoded: Tensor
    """Characters in their context, (B, N, D)."""
    scores: Tensor
    """From `alignment.scores`, (B, T, N)."""
    found: Tensor
    """The character of each frame, (B, T)."""
    how: Spoken
    """How the characters were spoken."""


def aligned(model: Voice, batch: Batch) -> Aligned:
    """Return a batch's spectrograms, and which character was spoken when and how.

    Args:
        model: The networks.
        batch: As for `step`.
    """
    target, length = batch["target"], batch["target_length"]
    power = model.spectra.power(batch["sound"])
    frames = model.spectra.frames(batch["sound_length"])
    inside = present(frames, power.shape[1])
    x = model.normalised(power) * inside
    encoded = model.encode(target, length)
    scores = alignment.scores(x, model.means(encoded), frames, length)
    found = alignment.likeliest(scores.detach(), frames, length)
    share = F.one_hot(found, target.shape[1]).float() * inside  # (B, T, N)
    count = share.sum(1)
    pitch = batch["pitch"][:, : x.shape[1]]
    voiced = (pitch > 0).float()
    mean, std = model.pitch_scale
    height = (pitch.clamp(min=1).log() - mean) / std * voiced
    spoken = Spoken(
        count.clamp(min=1).log(),
        _mean(height, voiced, share),
        _mean(x.mean(2), inside[:, :, 0], share),
    )
    return Aligned(x, power, frames, encoded, scores, found, spoken)


def _mean(values: Tensor, weights: Tensor, share: Tensor) -> Tensor:
    """Return the weighted mean of the values (B, T) of each character's frames, (B, N); 0 if none has a weight."""
    sums = torch.stack([values * weights, weights], 1) @ share  # (B, 2, N)
    return sums[:, 0] / sums[:, 1].clamp(min=1)


def step(model: nn.Module, batch: Batch, params: SynthesisParams) -> StepOutput:
    """Return the loss of a batch, a sum over frames.

    It adds up the mean absolute error of the log-mel spectrogram, given the aligned durations, pitch and energy;
    the forward-sum loss; squared errors of the predicted logarithms of durations, pitch and energy; and the
    vocoder's loss. In training, the vocoder learns from a random segment of each recording.

    Args:
        model: A `Voice`.
        batch: `sound`, samples (B, N), `target`, characters, and `pitch` in Hz, zero-padded, with lengths, (B,).
        params: Unused.
    """
    assert isinstance(model, Voice), "the loss needs its parts"
    length = batch["target_length"]
    own = aligned(model, batch)
    inside, letters = present(own.frames, own.x.shape[1]), present(length, batch["target"].shape[1])[:, :, 0]
    decoded = model.decode(own.encoded, own.how, own.found, own.frames)
    mel = ((decoded - own.x).abs() * inside).mean(2).sum()
    forward = alignment.forward_sum(own.scores, own.frames, length).sum()
    guessed = model.spoken(own.encoded, length)
    per_letter = own.frames / length  # so that a recording counts as many times as it has frames
    prosody = sum(
        (((one - other).square() * letters).sum(1) * per_letter).sum()
        for one, other in zip(guessed, own.how, strict=True)
    )
    vocoder = _vocoder(model, batch["sound"], own)
    count = own.frames.sum()
    loss = mel + ALIGNMENT * forward + PROSODY * prosody + vocoder * count
    if model.training:
        return StepOutput(loss, count)
    return StepOutput(loss.double(), count, {"mel_error": mel.double()})


def _vocoder(model: Voice, sound: Tensor, own: Aligned) -> Tensor:
    """Return the vocoder's mean loss of a frame, of a segment of each recording."""
    size = min(SEGMENT, own.x.shape[1]) if model.training else own.x.shape[1]
    room = (own.frames - size).clamp(min=0)
    start = (torch.rand(len(room), device=room.device) * (room + 1)).long() if model.training else 0 * room
    at = start[:, None] + torch.arange(size, device=room.device)  # (B, size)
    hop = model.spectra.hop
    samples = start[:, None] * hop + torch.arange((size - 1) * hop, device=room.device)
    padded = F.pad(sound.float() / FULL_SCALE, (0, (size + 1) * hop))
    inside = (at < own.frames[:, None]).float()
    losses = model.vocoder.loss(
        model.spectra,
        own.x.gather(1, at[:, :, None].expand(-1, -1, own.x.shape[2])),
        own.power.gather(1, at[:, :, None].expand(-1, -1, own.power.shape[2])),
        padded.gather(1, samples),
        inside[:, :, None],
    )
    return (losses * inside).sum() / inside.sum()


def predict(model: nn.Module, batch: Batch, params: SynthesisParams) -> Batch:
    """Return what the voice says for each text, and how long it and the recording take for each character.

    Texts are spoken one at a time, so that no sample depends on the others in a batch.

    Args:
        model: A `Voice`.
        batch: As for `step`.
        params: `evaluate.limits` is used.

    Returns:
        `speech`, int16 (B, N), zero-padded, with `speech_length`; `duration` and `spoken`, the predicted number of
        frames of each character and that in the recording, float32 (B, N), zero-padded.
    """
    assert isinstance(model, Voice), "predictions need its parts"
    count, most = batch["target"].shape
    duration, spoken = (torch.zeros(count, most) for _ in range(2))
    speech = []
    for index, (letters, samples) in enumerate(
        zip(batch["target_length"].cpu().tolist(), batch["sound_length"].cpu().tolist(), strict=True)
    ):
        target, length = batch["target"][index : index + 1, :letters], batch["target_length"][index : index + 1]
        found = synthesised(model, target)
        speech.append(found.sound)
        duration[index, :letters] = found.duration
        sound = {
            "sound": batch["sound"][index : index + 1, :samples],
            "sound_length": batch["sound_length"][index : index + 1],
            "target": target,
            "target_length": length,
            "pitch": batch["pitch"][index : index + 1],
        }
        spoken[index, :letters] = aligned(model, sound).how.duration[0].exp().cpu()
    longest = max(len(each) for each in speech)
    return {
        "speech": torch.stack([F.pad(each, (0, longest - len(each))) for each in speech]),
        "speech_length": torch.tensor([len(each) for each in speech]),
        "duration": duration,
        "spoken": spoken,
    }
