"""Optimizers, learning-rate schedules and the moving average of the weights."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from components.params import OptimizerParams, ScheduleParams


def build_optimizer(model: nn.Module, params: OptimizerParams) -> Optimizer:
    """Return the optimizer over all trainable parameters.

    Only tensors of two or more dimensions are decayed: decaying biases and norms hurts (He et al. 2019,
    "Bag of Tricks", arXiv:1812.01187, section 3.1).
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": params.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    if params.name == "sgd":
        nesterov = params.momentum > 0
        return SGD(groups, lr=params.lr, momentum=params.momentum, nesterov=nesterov, fused=True)
    return AdamW(groups, lr=params.lr, betas=(params.momentum, 0.999), fused=True)


def build_schedule(optimizer: Optimizer, params: ScheduleParams, updates: int) -> LambdaLR:
    """Return the schedule of the learning rate over `updates` optimizer updates."""
    factor = _FACTORS[params.name]
    # The middle of each update's stretch, so that neither the first nor the last update has rate zero.
    return LambdaLR(optimizer, lambda update: factor(min((update + 0.5) / updates, 1.0), params.warmup))


def _one_cycle(progress: float, warmup: float) -> float:
    """Smith and Topin 2018 (arXiv:1708.07120), with cosines as in torch's OneCycleLR: from 1/25 to 1 to 0."""
    if progress < warmup:
        return 1 - (1 - 1 / 25) * _fall(progress / warmup)
    return _fall((progress - warmup) / (1 - warmup))


def _cosine(progress: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return progress / warmup if progress < warmup else _fall((progress - warmup) / (1 - warmup))


def _constant(progress: float, warmup: float) -> float:
    return min(progress / warmup, 1.0) if warmup else 1.0


def _fall(progress: float) -> float:
    """From 1 at 0 to 0 at 1, along half a cosine."""
    return (1 + math.cos(math.pi * progress)) / 2


_FACTORS: dict[str, Callable[[float, float], float]] = {
    "one_cycle": _one_cycle,
    "cosine": _cosine,
    "constant": _constant,
}


_Tensors = tuple[Tensor, ...] | list[Tensor]


def build_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of the model's weights and buffers.

    The decay rises as (1 + n) / (10 + n) over the first n updates, so that a short training's average is
    not made of its random beginning.
    """

    def average(averaged: _Tensors, current: _Tensors, updates: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(updates)) / (10 + int(updates)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, share)
        else:
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(average), use_buffers=True)
