"""Connectionist temporal classification (Graves et al. 2006): the loss, the likeliest frames, and the alignment.

A network gives each frame a distribution over tokens and a blank. A path of one token or blank a frame stands for
the text that remains if repeated tokens become one and blanks are left out.

Shapes: B recordings, T frames, C tokens with the blank, U tokens of a text.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

IMPOSSIBLE = -1e30
"""Stands for the logarithm of zero, as the difference of two infinities is no number."""


def least_frames(tokens: Sequence[int]) -> int:
    """Return how many frames a text needs at least: one a token, and a blank between equal ones."""
    return len(tokens) + sum(one == other for one, other in pairwise(tokens))


def loss(log_probs: Tensor, frames: Tensor, target: Tensor, target_length: Tensor, blank: int) -> Tensor:
    """Return the negative log-probability of each text, float32 (B,), differentiable; 0 for an impossible one.

    The same as torch's `ctc_loss` with `zero_infinity`, which waits for a GPU, as it needs the lengths on the CPU,
    and whose gradient there is not the same each time.

    Args:
        log_probs: (B, T, C), log-probabilities.
        frames: (B,), int64: how many frames of each recording are no padding.
        target: (B, U), int64, with any padding.
        target_length: (B,), int64.
        blank: The index of the blank.
    """
    with torch.no_grad():
        occupancy, total = _occupancy(log_probs.detach().double(), frames, target, target_length, blank)
    # The gradient of -log p is minus the expected number of visits to each token at each frame. The value of the
    # sum below is replaced by -log p.
    visits = -(occupancy * log_probs.float()).flatten(1).sum(1)
    return visits + (-total.float() - visits).detach()


def _occupancy(
    log_probs: Tensor, frames: Tensor, target: Tensor, target_length: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """Return the probability of each token at each frame given the text, (B, T, C), and the text's log-probability.

    The forward-backward algorithm over the text with a blank before, between and after its tokens, L = 2 U + 1.
    Both are zero for an impossible text.
    """
    batch, steps, classes = log_probs.shape
    labels = target.new_full((batch, 2 * target.shape[1] + 1), blank)  # (B, L)
    labels[:, 1::2] = target
    places = torch.arange(labels.shape[1], device=labels.device)
    labels = torch.where(places < 2 * target_length[:, None] + 1, labels, blank)
    # From a token to the next one without a blank, unless they are equal.
    skips = torch.zeros_like(labels, dtype=torch.bool)
    skips[:, 2:] = (labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2])
    emitted = log_probs.gather(2, labels[:, None].expand(-1, steps, -1))  # (B, T, L)
    ends = (places == 2 * target_length[:, None]) | (places == 2 * target_length[:, None] - 1)
    time = torch.arange(steps, device=labels.device)
    last, inside = time == frames[:, None] - 1, time < frames[:, None]  # (B, T)

    forward = torch.where(places < 2, 0.0, IMPOSSIBLE).double().expand(batch, -1)  # of the frame before
    forwards = []
    for step in range(steps):
        moved = forward if step == 0 else _summed(forward, skips, 1)
        forward = (moved + emitted[:, step]).clamp(min=IMPOSSIBLE)
        forwards.append(forward)
    backward = torch.full_like(emitted[:, 0], IMPOSSIBLE)
    backwards = []
    for step in reversed(range(steps)):
        if step + 1 < steps:
            backward = _summed((backward + emitted[:, step + 1]).clamp(min=IMPOSSIBLE), skips, -1)
        backward = torch.where(last[:, step, None], torch.where(ends, 0.0, IMPOSSIBLE), backward)
        backwards.append(backward)
    joint = torch.stack(forwards, 1) + torch.stack(backwards[::-1], 1)  # (B, T, L)
    total = joint[:, 0].logsumexp(1)  # (B,)
    possible = total > IMPOSSIBLE / 2
    shares = (joint - total[:, None, None]).exp()
    shares = torch.where(inside[:, :, None] & possible[:, None, None], shares, 0.0)
    # A product of matrices, as adding up at indices is in no fixed order on a GPU.
    one_hot = torch.nn.functional.one_hot(labels, classes).float()  # (B, L, C)
    return shares.float() @ one_hot, torch.where(possible, total, 0.0)


def _summed(before: Tensor, skips: Tensor, direction: int) -> Tensor:
    """Return the log-sum over staying, one step and, where allowed, two steps; 1 goes forward, -1 backward."""
    stay = before
    if direction > 0:
        one = torch.nn.functional.pad(before[:, :-1], (1, 0), value=IMPOSSIBLE)
        two = torch.nn.functional.pad(before[:, :-2], (2, 0), value=IMPOSSIBLE)
        two = torch.where(skips, two, IMPOSSIBLE)
    else:
        one = torch.nn.functional.pad(before[:, 1:], (0, 1), value=IMPOSSIBLE)
        two = torch.where(skips, before, IMPOSSIBLE)
        two = torch.nn.functional.pad(two[:, 2:], (0, 2), value=IMPOSSIBLE)
    return torch.stack([stay, one, two]).logsumexp(0)


def greedy(log_probs: Tensor, frames: Tensor, blank: int) -> list[list[int]]:
    """Return the text of the likeliest path of each recording, as tokens.

    Args:
        log_probs: (B, T, C).
        frames: (B,), int64.
        blank: The index of the blank.
    """
    texts, length = _likeliest(log_probs, frames, blank)
    rows, lengths = texts.cpu().tolist(), length.cpu().tolist()
    return [own[:most] for own, most in zip(rows, lengths, strict=True)]


def _likeliest(log_probs: Tensor, frames: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Return the texts of the likeliest paths, int64 (B, T + 1), and their lengths, without waiting for a GPU."""
    batch, steps, _ = log_probs.shape
    best = log_probs.argmax(2)  # (B, T)
    before = torch.nn.functional.pad(best[:, :-1], (1, 0), value=blank)
    inside = torch.arange(steps, device=best.device) < frames[:, None]
    kept = (best != before) & (best != blank) & inside
    place = torch.where(kept, kept.cumsum(1) - 1, steps)  # what is not kept goes to the last place
    return best.new_zeros(batch, steps + 1).scatter(1, place, best), kept.sum(1)


def errors(log_probs: Tensor, frames: Tensor, target: Tensor, target_length: Tensor, blank: int) -> Tensor:
    """Return how many edits are between the text of each likeliest path and its target, int64 (B,).

    Arguments as for `loss`. All is computed on their device, without waiting for a GPU.
    """
    texts, length = _likeliest(log_probs, frames, blank)
    places = torch.arange(target.shape[1] + 1, device=target.device)
    row = places.expand(len(target), -1)  # edits between no token and the first ones of the target, (B, U + 1)
    for step in range(log_probs.shape[1]):
        replaced = row[:, :-1] + (texts[:, step, None] != target)
        best = torch.cat([row[:, :1] + 1, torch.minimum(row[:, 1:] + 1, replaced)], 1)
        best = (best - places).cummin(1).values + places  # tokens of the target that are missing
        row = torch.where(step < length[:, None], best, row)
    return row.gather(1, target_length[:, None])[:, 0]


class Aligned(NamedTuple):
    """The frames of a token on the likeliest path of its text."""

    first: int
    last: int
    """The last frame that is its own."""


def align(log_probs: Tensor, tokens: Sequence[int], blank: int) -> tuple[list[Aligned], list[float]]:
    """Return the frames of each token on a text's likeliest path, and the log-probability of each frame on it.

    Args:
        log_probs: (T, C), float32, on the CPU.
        tokens: U of them, for which `least_frames` is at most T.
        blank: The index of the blank.
    """
    from torchaudio.functional import forced_align  # type: ignore[import-untyped]

    if not tokens:
        return [], log_probs[:, blank].tolist()
    targets = torch.tensor([list(tokens)], dtype=torch.int32)
    path, scores = forced_align(log_probs[None].contiguous(), targets, blank=blank)
    found: list[Aligned] = []
    before = blank
    for frame, token in enumerate(path[0].tolist()):
        if token not in (before, blank):
            found.append(Aligned(frame, frame))
        elif token != blank:
            found[-1] = Aligned(found[-1].first, frame)
        before = token
    return found, scores[0].tolist()
