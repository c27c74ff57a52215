"""Texts that are spoken: served answers and the predictions of evaluation come from here."""

from typing import NamedTuple

import torch
from torch import Tensor

from components.tasks.speech_synthesis.model import Spoken, Voice
from components.tasks.speech_synthesis.spectra import FULL_SCALE

SEED = 0
"""Of the phases, where none is asked for."""


class Planned(NamedTuple):
    """A text in its context, and how it will be spoken."""

    encoded: Tensor
    """(1, N, D)."""
    how: Spoken
    ends: Tensor
    """The frame at which each character ends, int64 (1, N)."""

    @property
    def frames(self) -> int:
        """The number of frames."""
        return int(self.ends[0, -1])


class Speech(NamedTuple):
    """A text that was spoken."""

    sound: Tensor
    """Samples, int16 (N,), on the CPU."""
    duration: Tensor
    """The number of frames of each character, float32 (N,), on the CPU."""


def planned(model: Voice, target: Tensor, speed: float = 1) -> Planned:
    """Return how characters, int (1, N), will be spoken, at a multiple of the voice's own speed."""
    length = torch.tensor([target.shape[1]], device=target.device)
    encoded = model.encode(target, length)
    how = model.spoken(encoded, length)
    # Sums are rounded, so that the errors of rounding do not add up; a text has two frames at least.
    ends = (how.duration.exp() / speed).cumsum(1).round().long()
    ends[:, -1] = ends[:, -1].clamp(min=2)
    return Planned(encoded, how, ends)


def synthesised(model: Voice, target: Tensor) -> Speech:
    """Return characters, int (1, N), as they are spoken unless a request says otherwise."""
    plan = planned(model, target)
    return Speech(
        sound_of(model, plan, SEED),
        plan.ends.diff(dim=1, prepend=torch.zeros_like(plan.ends[:, :1]))[0].float().cpu(),
    )


def sound_of(model: Voice, plan: Planned, seed: int) -> Tensor:
    """Return the samples of a plan, int16 (N,), on the CPU."""
    time = torch.arange(plan.frames, device=plan.ends.device)
    found = torch.searchsorted(plan.ends[0], time, right=True)[None]  # (1, T)
    frames = torch.tensor([plan.frames], device=plan.ends.device)
    x = model.decode(plan.encoded, plan.how, found, frames)
    sound = model.vocoder.sound(model.spectra, x, seed)
    return (sound * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16).cpu()
