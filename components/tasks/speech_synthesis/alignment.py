"""Which character each frame belongs to, learnt without outside help.

Each character, in its context, has a mean spectrum, around which the frames that belong to it are normally
distributed, as in Glow-TTS (Kim et al. 2020, arXiv:2005.11129). The loss adds up all paths that go through all
characters in order, with a prior around the diagonal, as in Badlani et al. 2021 (arXiv:2108.10447). Their shares of
characters in a frame, in place of likelihoods, would let one character take the frames that no other one explains.
The likeliest path gives the durations.

Shapes: B recordings, T frames, N characters, M mel bands.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH = 0.15
"""Standard deviation of the prior, as a share of the text: speech is nearly as far as its text."""
IMPOSSIBLE = -1e4
"""Score of a character that is padding."""
NEVER = -1e30
"""Stands for the logarithm of zero, as the difference of two infinities is no number."""


def scores(x: Tensor, means: Tensor, frames: Tensor, length: Tensor) -> Tensor:
    """Return the log-likelihood of each frame as one of each character's, without constants, float32 (B, T, N).

    The variance is the square root of M, as bands of a frame are far from independent.

    Args:
        x: Normalised log-mel spectrograms, (B, T, M).
        means: That of each character, (B, N, M).
        frames: (B,), int64.
        length: Numbers of characters, (B,), int64.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, means = x.float(), means.float()
        distance = x.square().sum(2)[:, :, None] + means.square().sum(2)[:, None] - 2 * x @ means.transpose(1, 2)
        found = _prior(frames, length, x.shape[1], means.shape[1]) - distance / (2 * x.shape[2] ** 0.5)
    inside = torch.arange(means.shape[1], device=x.device) < length[:, None]
    return torch.where(inside[:, None], found, IMPOSSIBLE)


def _prior(frames: Tensor, length: Tensor, most_frames: int, most: int) -> Tensor:
    """Return the logarithm of a normal distribution around the diagonal, (B, T, N), without its constant."""
    time = (torch.arange(most_frames, device=frames.device) + 0.5) / frames[:, None]  # (B, T)
    place = (torch.arange(most, device=frames.device) + 0.5) / length[:, None]  # (B, N)
    return -(time[:, :, None] - place[:, None]).square() / (2 * WIDTH**2)


def forward_sum(found: Tensor, frames: Tensor, length: Tensor) -> Tensor:
    """Return the negative log-likelihood of each recording, (B,), differentiable.

    Args:
        found: From `scores`.
        frames: (B,), int64; at least `length`.
        length: (B,), int64.
    """
    shares, total = posterior(found.detach(), frames, length)
    # The gradient of -log p is minus the probability of each character at each frame. The value of the sum below is
    # replaced by -log p.
    visits = -(shares * found).flatten(1).sum(1)
    return visits + (-total - visits).detach()


@torch.no_grad()
def posterior(found: Tensor, frames: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Return each character's probability at each frame, (B, T, N), and the log-likelihood of a recording, (B,).

    The forward-backward algorithm over paths that stay at a character or go to the next one; arguments as for
    `forward_sum`.
    """
    log_probs = found.double()
    steps, places = log_probs.shape[1], torch.arange(log_probs.shape[2], device=log_probs.device)
    time = torch.arange(steps, device=log_probs.device)
    last, inside = time == frames[:, None] - 1, time < frames[:, None]  # (B, T)
    forward = torch.where(places == 0, log_probs[:, 0], NEVER)
    forwards = [forward]
    for step in range(1, steps):
        forward = torch.logaddexp(forward, F.pad(forward[:, :-1], (1, 0), value=NEVER)) + log_probs[:, step]
        forwards.append(forward)
    end = torch.where(places == length[:, None] - 1, 0.0, NEVER).double()
    backward = end
    backwards = [backward]
    for step in range(steps - 2, -1, -1):
        later = backward + log_probs[:, step + 1]
        backward = torch.logaddexp(later, F.pad(later[:, 1:], (0, 1), value=NEVER))
        backward = torch.where(last[:, step, None], end, backward)
        backwards.append(backward)
    joint = torch.stack(forwards, 1) + torch.stack(backwards[::-1], 1)
    total = joint[:, 0].logsumexp(1)
    shares = (joint - total[:, None, None]).exp()
    return torch.where(inside[:, :, None], shares, 0.0).float(), total.float()


@torch.no_grad()
def likeliest(found: Tensor, frames: Tensor, length: Tensor) -> Tensor:
    """Return the character of each frame on the likeliest path, int64 (B, T): each has one frame or more, in order.

    This is Viterbi's algorithm, without waiting for a GPU. A frame of padding belongs to the last character.

    Args:
        found: From `scores`.
        frames: (B,), int64; at least `length`.
        length: (B,), int64.
    """
    steps = found.shape[1]
    best = torch.full_like(found[:, 0], NEVER)
    best[:, 0] = found[:, 0, 0]
    advanced = []
    for step in range(1, steps):
        before = F.pad(best[:, :-1], (1, 0), value=NEVER)
        advanced.append(before > best)
        best = torch.maximum(best, before) + found[:, step]
    at = length - 1  # (B,)
    path = [at]
    for step in range(steps - 1, 0, -1):
        moved = advanced[step - 1].gather(1, at[:, None])[:, 0] & (step < frames)
        at = at - moved.long()
        path.append(at)
    return torch.stack(path[::-1], 1)
