"""Which character each frame belongs to: learnt without outside help, as in Badlani et al. 2021 (arXiv:2108.10447).

Each frame has a distribution over the characters. The forward-sum loss is the negative log-probability of all
paths that go through all characters in order, and the likeliest of these paths gives the durations.

Shapes: B recordings, T frames, N characters, M mel bands, D features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 0.15
"""Standard deviation of the prior, as a share of the text: speech is nearly as far as its text."""
IMPOSSIBLE = -1e4
"""Score of a character that is padding."""
NEVER = -1e30
"""Stands for the logarithm of zero, as the difference of two infinities is no number."""


class Aligner(nn.Module):
    """Compares frames and characters by convolutions over both.

    Args:
        bands: M.
        size: D.
    """

    def __init__(self, bands: int, size: int) -> None:
        super().__init__()
        self.keys = nn.Sequential(nn.Conv1d(size, size, 3, padding=1), nn.ReLU(), nn.Conv1d(size, bands, 1))
        self.queries = nn.Sequential(nn.Conv1d(bands, bands, 3, padding=1), nn.ReLU(), nn.Conv1d(bands, bands, 1))

    def forward(self, x: Tensor, embedded: Tensor, frames: Tensor, length: Tensor) -> Tensor:
        """Return the logarithm of each character's share of a frame before normalisation, float32 (B, T, N).

        Args:
            x: Log-mel spectrograms, (B, T, M), zero where there is padding.
            embedded: Characters, (B, N, D), zero where there is padding.
            frames: (B,), int64.
            length: Numbers of characters, (B,), int64.
        """
        queries = self.queries(x.transpose(1, 2)).transpose(1, 2).float()
        keys = self.keys(embedded.transpose(1, 2)).transpose(1, 2).float()
        with torch.autocast(x.device.type, enabled=False):
            # A squared distance, without what is the same for all characters.
            scores = (2 * queries @ keys.transpose(1, 2) - keys.square().sum(2)[:, None]) / keys.shape[2] ** 0.5
            scores = scores + _prior(frames, length, x.shape[1], embedded.shape[1])
        inside = torch.arange(scores.shape[2], device=x.device) < length[:, None]
        return torch.where(inside[:, None], scores, IMPOSSIBLE)


def _prior(frames: Tensor, length: Tensor, most_frames: int, most: int) -> Tensor:
    """Return the logarithm of a normal distribution around the diagonal, (B, T, N), without its constant."""
    time = (torch.arange(most_frames, device=frames.device) + 0.5) / frames[:, None]  # (B, T)
    place = (torch.arange(most, device=frames.device) + 0.5) / length[:, None]  # (B, N)
    return -(time[:, :, None] - place[:, None]).square() / (2 * WIDTH**2)


def forward_sum(scores: Tensor, frames: Tensor, length: Tensor) -> Tensor:
    """Return the forward-sum loss of each recording in nats, (B,), differentiable.

    The paper uses CTC's loss, whose blank belongs to no character; here each frame belongs to one.

    Args:
        scores: From `Aligner`.
        frames: (B,), int64; at least `length`.
        length: (B,), int64.
    """
    log_probs = scores.log_softmax(2)
    with torch.no_grad():
        occupancy, total = _occupancy(log_probs.detach().double(), frames, length)
    # The gradient of -log p is minus the probability of each character at each frame. The value of the sum below is
    # replaced by -log p.
    visits = -(occupancy * log_probs).flatten(1).sum(1)
    return visits + (-total.float() - visits).detach()


def _occupancy(log_probs: Tensor, frames: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Return each character's probability at each frame, (B, T, N), and the logarithm of that of all paths, (B,).

    The forward-backward algorithm over paths that stay at a character or go to the next one.
    """
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
    return torch.where(inside[:, :, None], shares, 0.0).float(), total


@torch.no_grad()
def path(scores: Tensor, frames: Tensor, length: Tensor) -> Tensor:
    """Return the character of each frame on the likeliest path, int64 (B, T): each has one frame or more, in order.

    This is Viterbi's algorithm, without waiting for a GPU. A frame of padding belongs to the last character.

    Args:
        scores: From `Aligner`.
        frames: (B,), int64; at least `length`.
        length: (B,), int64.
    """
    steps = scores.shape[1]
    log_probs = scores.log_softmax(2)
    best = torch.full_like(log_probs[:, 0], NEVER)
    best[:, 0] = log_probs[:, 0, 0]
    advanced = []
    for step in range(1, steps):
        before = F.pad(best[:, :-1], (1, 0), value=NEVER)
        advanced.append(before > best)
        best = torch.maximum(best, before) + log_probs[:, step]
    at = length - 1  # (B,)
    found = [at]
    for step in range(steps - 1, 0, -1):
        moved = advanced[step - 1].gather(1, at[:, None])[:, 0] & (step < frames)
        at = at - moved.long()
        found.append(at)
    return torch.stack(found[::-1], 1)


def durations(found: Tensor, frames: Tensor, characters: int) -> Tensor:
    """Return the number of frames of each character on paths, float32 (B, N).

    Args:
        found: From `path`.
        frames: (B,), int64.
        characters: N.
    """
    inside = torch.arange(found.shape[1], device=found.device) < frames[:, None]
    # A product of matrices, as adding up at indices is in no fixed order on a GPU.
    one_hot = F.one_hot(found, characters).float()  # (B, T, N)
    return (inside.float()[:, None] @ one_hot)[:, 0]
