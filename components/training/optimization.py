"""Optimizers, learning-rate schedules and the moving average of the weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer
from torch.optim import _muon as _torch_muon
from torch.optim.swa_utils import AveragedModel

from components.params import AverageParams, OptimizerParams, TrainParams
from components.training.device import precision_on


def build_optimizers(model: nn.Module, params: OptimizerParams) -> list[Optimizer]:
    """Return the optimizers that together have all trainable parameters, each once.

    Only tensors of two or more dimensions are decayed: decaying biases and norms hurts (He et al. 2019,
    "Bag of Tricks", arXiv:1812.01187, section 3.1). Muon (Jordan 2024, kellerjordan.github.io/posts/muon) is
    for matrices between hidden layers: embeddings and the last layer are AdamW's. Its step has the root mean
    square of AdamW's (Liu et al. 2025, arXiv:2502.16982), so that one rate fits both.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if params.name == "muon":
        modules = list(model.modules())
        ends = [m for m in modules if isinstance(m, nn.Embedding)] + [
            m for m in modules if isinstance(m, nn.Linear)
        ][-1:]
        outer = {id(m.weight) for m in ends}
        inner = [p for p in trainable if p.ndim == 2 and id(p) not in outer]
        others = [p for p in trainable if p.ndim != 2 or id(p) in outer]
        # A convolutional network may have no such matrix, and torch makes no optimizer of nothing.
        return [*([_muon(inner, params)] if inner else []), *([_adamw(others, params)] if others else [])]
    if params.name == "sgd":
        nesterov = params.momentum > 0
        return [SGD(_groups(trainable, params), params.lr, params.momentum, nesterov=nesterov, fused=True)]
    return [_adamw(trainable, params)]


def _muon(matrices: list[nn.Parameter], params: OptimizerParams) -> Muon:
    if precision_on(matrices[0].device, "auto") == "fp32":
        # torch always takes bf16 here (2.14): computed in software, 0.24 s for 768 x 192, and 0.01 s in fp32.
        _torch_muon._zeropower_via_newtonschulz = orthogonalised
    return Muon(
        matrices,
        lr=params.lr,
        momentum=params.momentum,
        weight_decay=params.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )


def orthogonalised(grad: Tensor, ns_coefficients: tuple[float, float, float], ns_steps: int, eps: float) -> Tensor:
    """Bring a matrix's singular values near 1, in its own precision: Newton and Schulz's steps, as torch has them.

    Args:
        grad: (rows, columns).
        ns_coefficients: a, b and c of a step, X -> a X + (b X X' + c (X X')^2) X.
        ns_steps: How many.
        eps: The norm is taken for at least this.
    """
    a, b, c = ns_coefficients
    tall = grad.shape[0] > grad.shape[1]
    wide = grad.T if tall else grad
    x: Tensor = wide / wide.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def _adamw(parameters: list[nn.Parameter], params: OptimizerParams) -> AdamW:
    return AdamW(_groups(parameters, params), lr=params.lr, betas=(params.momentum, 0.999), fused=True)


def _groups(parameters: list[nn.Parameter], params: OptimizerParams) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": params.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate(params: TrainParams, progress: float) -> float:
    """Return the rate when a share `progress` of the training is over, 0 to 1."""
    return params.optimizer.lr * _FACTORS[params.schedule.name](progress, params.schedule.warmup)


def _one_cycle(progress: float, warmup: float) -> float:
    """Smith and Topin 2018 (arXiv:1708.07120), with cosines as in torch's OneCycleLR: from 1/25 to 1 to 0."""
    if progress < warmup:
        return 1 - (1 - 1 / 25) * _fall(progress / warmup)
    return _fall((progress - warmup) / (1 - warmup))


def _cosine(progress: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return progress / warmup if progress < warmup else _fall((progress - warmup) / (1 - warmup))


def _linear(progress: float, warmup: float) -> float:
    """Linear warm-up, then a straight line to zero (Defazio et al. 2023, arXiv:2310.07831)."""
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)


def _constant(progress: float, warmup: float) -> float:
    return min(progress / warmup, 1.0) if warmup else 1.0


def _fall(progress: float) -> float:
    """From 1 at 0 to 0 at 1, along half a cosine."""
    return (1 + math.cos(math.pi * progress)) / 2


_FACTORS: dict[str, Callable[[float, float], float]] = {
    "one_cycle": _one_cycle,
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
}


_Tensors = tuple[Tensor, ...] | list[Tensor]


def build_average(model: nn.Module, params: AverageParams) -> AveragedModel | None:
    """Return an average of the model's weights and buffers that starts with its first update, or None.

    `mean` is the average of Polyak and Juditsky 1992. The decay of `ema` rises as (1 + n) / (10 + n) over the
    first n updates, so that a short training's average is not made of its beginning.
    """
    if params.name == "none":
        return None

    def share(updates: int) -> float:
        if params.name == "mean":
            return 1 / (updates + 1)
        return 1 - min(params.decay, (1 + updates) / (10 + updates))

    def average(averaged: _Tensors, current: _Tensors, updates: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, share(int(updates)))
        else:
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(average), use_buffers=True)
