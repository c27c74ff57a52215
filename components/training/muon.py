"""Muon (Jordan 2024, kellerjordan.github.io/posts/muon) for matrices and for the filters of convolutions."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b and c of a Newton-Schulz step, X -> (a + b X X' + c (X X')^2) X."""
STEPS = 5
LIKE_ADAMW = 0.2
"""Root mean square of AdamW's updates, to which Muon's are scaled (Liu et al. 2025, arXiv:2502.16982, 2.2)."""
SMALLEST = 1e-7
"""Least norm that a matrix is divided by."""


class Muon(Optimizer):
    """Nesterov's momentum, made orthogonal: each update has singular values close to 1, times the learning rate.

    The filters of a convolution are the rows of a matrix, as in Jordan's implementation. torch's Muon (2.14) takes
    no convolutions, and computes in bf16 also where the processor has no such instructions.

    Args:
        groups: Groups of parameters with at least two dimensions.
        lr: Learning rate, on the scale of AdamW's, so that one fits both.
        momentum: Share of the momentum that the next update keeps.
        weight_decay: An update removes this share of the weights, times `lr`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the weights that have gradients; `closure`, of torch's interface, is not called."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for weights in alike.values():
                self._update(weights, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, weights: list[Tensor], lr: float, momentum: float, decay: float) -> None:
        """Update weights of one shape."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, buffers, momentum)
        matrices = torch.stack([each.flatten(1) for each in ahead])
        rate = lr * LIKE_ADAMW * max(matrices.shape[1:]) ** 0.5
        torch._foreach_mul_(weights, 1 - lr * decay)
        torch._foreach_add_(weights, [each.view_as(weights[0]) for each in orthogonalised(matrices)], alpha=-rate)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices (N, rows, columns) close to 1 by Newton-Schulz iteration.

    The steps are polynomials of X X', so they are computed for that smaller matrix, and applied to X once. In
    float32: rounded to bf16, X X' has negative eigenvalues, which each step multiplies by 12.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    x: Tensor = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST)
    gram = x @ x.mT
    product = step = _factor(gram)
    for _ in range(STEPS - 1):
        gram = step @ gram @ step
        step = _factor(gram)
        product = step @ product
    return product @ x


def _factor(gram: Tensor) -> Tensor:
    """Return what a step multiplies X with."""
    a, b, c = COEFFICIENTS
    found = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    found.diagonal(dim1=1, dim2=2).add_(a)
    return found
