"""Copies of a network that learn independently, and whose probabilities are averaged (deep ensembles).

Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Members(nn.Module):
    """Several networks of one architecture with different random weights.

    Args:
        build: Returns a network with random weights; called for each member.
        count: Number of members, at least 2.
        several: Whether a sample can have several labels, so that each logit has a probability of its own.
    """

    def __init__(self, build: Callable[[], nn.Module], count: int, several: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(build() for _ in range(count))
        self.several = several

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the members' logits (M, N, classes); outside training, to (N, classes).

        The latter are the logits of the mean of the members' probabilities, float32 or float64.
        """
        logits = torch.stack([member(x) for member in self.members])
        return logits if self.training else averaged(logits, self.several)


def averaged(logits: Tensor, several: bool) -> Tensor:
    """Return the logits (N, classes) of the mean of probabilities, given those of each member (M, N, classes)."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if several:
        # The mean of sigmoids, and of their complements, in logarithms, so that neither is rounded to 0.
        return _mean(nn.functional.logsigmoid(wide)) - _mean(nn.functional.logsigmoid(-wide))
    return _mean(wide.log_softmax(2))


def _mean(logs: Tensor) -> Tensor:
    """Return the logarithm of the mean over the members, given logarithms (M, N, classes)."""
    return logs.logsumexp(0) - math.log(len(logs))


def networks(network: nn.Module) -> dict[str, nn.Module]:
    """Return a network, or the members of one, by the beginning of the names of their tensors in it."""
    if not isinstance(network, Members):
        return {"": network}
    return {f"members.{index}.": member for index, member in enumerate(network.members)}
