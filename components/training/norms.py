"""Batch norm's statistics in validation, where training has made too few updates for its running averages.

A running average starts from 0 and 1, which still make up half of it after 6 updates, and it averages over earlier
weights, which change quickly at first. A network that is evaluated with it can name one class for every sample
although it has learnt to tell them apart. The statistics are therefore computed anew, as those of the weights that
are validated (Wu and Johnson 2021, arXiv:2105.07576, section 3).
"""

from collections.abc import Set
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from components.contracts import Batches, Task
from components.params import TaskParams
from components.training.device import allow_tf32, to_device
from components.training.inference import copied

SETTLED = 50
"""Updates after which a running average with torch's momentum of 0.1 holds 0.5 % of its first values."""
BATCHES, SAMPLES = 2, 16
"""Training batches from which the statistics are computed, and the samples of each. 64 or 512 samples in all scored
no better (ResNet-18 of a quarter of the width, 129 photographs, three seeds), and took longer than validation."""


def learning(model: nn.Module) -> frozenset[str]:
    """Return the names of the batch norms that update their statistics: those that are in training mode."""
    return frozenset(name for name, each in model.named_modules() if isinstance(each, _BatchNorm) and each.training)


@torch.no_grad()
def with_own_statistics(
    task: Task[Any, Any],
    params: TaskParams,
    model: nn.Module,
    norms: Set[str],
    batches: Batches,
    device: torch.device,
) -> nn.Module:
    """Return a copy of a network whose batch norms have the statistics of its own weights.

    They are the mean of those of parts of training batches, in fp32 and without augmentation and dropout, as
    samples are evaluated.

    Args:
        task: The task, whose `step` is called.
        params: The parameters of the model.
        model: The network; its state does not change.
        norms: Names of the batch norms to compute anew; the others keep their statistics, such as frozen ones.
        batches: Batches of training samples.
        device: The device of the network.
    """
    copy = copied(model).eval()
    allow_tf32(device, False)
    for name in norms:
        norm = copy.get_submodule(name)
        assert isinstance(norm, _BatchNorm)
        norm.reset_running_stats()
        norm.momentum = None  # torch's value for the mean of all batches
        norm.train()
    for index in range(min(BATCHES, len(batches))):
        part = {name: tensor[:SAMPLES] for name, tensor in batches[index].items()}
        task.step(copy, to_device(part, device), params)
    return copy.eval()
