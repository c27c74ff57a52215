"""Optimizers, learning-rate schedules and the moving average of the weights."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from components.params import AverageParams, OptimizerParams, TrainParams
from components.training.inference import copied
from components.training.muon import Muon

LAYER_FACTOR = "layer_factor"
"""Key of a parameter group: the factor of its learning rate."""


def build_optimizers(model: nn.Module, params: OptimizerParams, layer_decay: float = 1.0) -> list[Optimizer]:
    """Return optimizers that together cover every trainable parameter exactly once.

    Weight decay applies only to tensors of two or more dimensions: decaying biases and norms hurts (He et al. 2019,
    "Bag of Tricks", arXiv:1812.01187, section 3.1). Muon is meant for matrices between hidden layers, so AdamW
    takes the embeddings and the last layer.

    Args:
        model: The model whose parameters are optimized.
        params: The optimizer and its hyperparameters.
        layer_decay: Ratio of each layer's learning rate to that of the next layer (Howard and Ruder 2018,
            arXiv:1801.06146, section 3.2); 1 gives all layers the same rate.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    factors = _layer_factors(model, layer_decay)
    if params.name == "muon":
        hidden = {id(weight) for weight in _hidden(model)}
        inner = [p for p in trainable if id(p) in hidden]
        others = [p for p in trainable if id(p) not in hidden]
        # A network may have no such weight, and torch rejects an optimizer without parameters.
        return [
            *([_muon(inner, params, factors)] if inner else []),
            *([_adamw(others, params, factors)] if others else []),
        ]
    if params.name == "sgd":
        return [_sgd(trainable, params, factors)]
    return [_adamw(trainable, params, factors)]


def _layer_factors(model: nn.Module, decay: float) -> dict[int, float]:
    """Return the learning-rate factor of each parameter by its id.

    Layers are the modules with weights, in the order of their definition. The modules of a numbered block form one
    layer, and a module without a matrix, such as a norm outside a block, belongs to the layer before it.
    """
    named = [(_layer(name), parameter) for name, parameter in model.named_parameters()]
    with_matrices = {layer for layer, parameter in named if parameter.ndim >= 2}
    layers: list[str] = []
    layer_of: dict[int, int] = {}
    for layer, parameter in named:
        if not layers or (layer != layers[-1] and layer in with_matrices):
            layers.append(layer)
        layer_of[id(parameter)] = len(layers) - 1
    return {parameter: decay ** (len(layers) - 1 - layer) for parameter, layer in layer_of.items()}


def _layer(name: str) -> str:
    """Return the name of a parameter's module, or of the numbered block that contains it."""
    parts = name.split(".")[:-1]
    numbered = next((index for index, part in enumerate(parts) if index and part.isdigit()), len(parts))
    return ".".join(parts[: numbered + 1])


def _hidden(model: nn.Module) -> list[nn.Parameter]:
    """Return the matrices and the filters of convolutions between a model's hidden layers.

    Embeddings and the last layer are none, and neither are filters that see one channel each: as rows of a matrix
    they would have nothing in common.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    alone = [m for m in layers if isinstance(m, nn.Conv1d | nn.Conv2d) and m.groups > 1]
    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    outer = {id(m.weight) for m in (*embeddings, *alone, *layers[-1:])}
    return [p for p in model.parameters() if p.ndim >= 2 and id(p) not in outer]


def _muon(weights: list[nn.Parameter], params: OptimizerParams, factors: dict[int, float]) -> Muon:
    groups = [
        {"params": [p for p in weights if factors[id(p)] == factor], LAYER_FACTOR: factor}
        for factor in _distinct(weights, factors)
    ]
    return Muon(groups, params.lr, params.momentum, params.weight_decay)


def _distinct(parameters: list[nn.Parameter], factors: dict[int, float]) -> list[float]:
    return list(dict.fromkeys(factors[id(p)] for p in parameters))


def _sgd(parameters: list[nn.Parameter], params: OptimizerParams, factors: dict[int, float]) -> SGD:
    nesterov, groups = params.momentum > 0, _groups(parameters, params, factors)
    optimizer = SGD(groups, params.lr, params.momentum, nesterov=nesterov, fused=True)
    if params.momentum:
        # torch (2.14) creates the buffers in a group's first step, and fails if frozen parameters of the group are
        # unfrozen later. Starting from zeros gives the same first step.
        optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in parameters})
    return optimizer


def _adamw(parameters: list[nn.Parameter], params: OptimizerParams, factors: dict[int, float]) -> AdamW:
    return AdamW(_groups(parameters, params, factors), lr=params.lr, betas=(params.momentum, 0.999), fused=True)


def _groups(
    parameters: list[nn.Parameter], params: OptimizerParams, factors: dict[int, float]
) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for factor in _distinct(parameters, factors):
        layer = [p for p in parameters if factors[id(p)] == factor]
        decayed, others = ([p for p in layer if (p.ndim >= 2) is matrices] for matrices in (True, False))
        groups.append({"params": decayed, "weight_decay": params.weight_decay, LAYER_FACTOR: factor})
        groups.append({"params": others, "weight_decay": 0.0, LAYER_FACTOR: factor})
    return groups


def learning_rate(params: TrainParams, progress: float) -> float:
    """Return the learning rate at a `progress` of 0 to 1, the completed share of the training."""
    return params.optimizer.lr * _FACTORS[params.schedule.name](progress, params.schedule.warmup)


def _one_cycle(progress: float, warmup: float) -> float:
    """Rise from 1/25 to 1, then fall to 0 (Smith and Topin 2018, arXiv:1708.07120), as torch's OneCycleLR does."""
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
    """Fall from 1 at 0 to 0 at 1, along half a cosine."""
    return (1 + math.cos(math.pi * progress)) / 2


_FACTORS: dict[str, Callable[[float, float], float]] = {
    "one_cycle": _one_cycle,
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
}


class Average:
    """A moving average of a model's weights and buffers, on the model's device.

    It computes what torch's AveragedModel does. That one (torch 2.14, torch/optim/swa_utils.py) has its number of
    updates in a tensor, which each update copies to the GPU and reads back, so that the CPU waits for the GPU.
    """

    def __init__(self, model: nn.Module, share: Callable[[int], float]) -> None:
        """Start an average of `model`; after n updates, the next weights get the share `share(n)`, the first 1."""
        self.module = copied(model)
        """The model with the averaged weights and buffers; its initial ones before the first update."""
        self.updates = 0
        self._share = share
        # The tensors themselves, not what they hold: cuDNN moves the weights of a recurrent layer in memory.
        self._averaged, self._current = _tensors(self.module), _tensors(model)

    @torch.no_grad()
    def update(self) -> None:
        """Average the present weights and buffers of the model with the earlier ones; copy those of other types."""
        (averaged, others), (current, present) = self._averaged, self._current
        if self.updates:
            torch._foreach_lerp_(averaged, current, self._share(self.updates))
        else:
            torch._foreach_copy_(averaged, current)
        if others:
            torch._foreach_copy_(others, present)
        self.updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state, with the names that AveragedModel gives it."""
        module = {f"{_MODULE}{name}": tensor for name, tensor in self.module.state_dict().items()}
        return {_UPDATES: torch.tensor(self.updates), **module}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.updates = int(state[_UPDATES])
        self.module.load_state_dict({n.removeprefix(_MODULE): each for n, each in state.items() if n != _UPDATES})


_UPDATES, _MODULE = "n_averaged", "module."


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return a model's floating-point weights and buffers, and the others, such as batch norm's count."""
    tensors = [*model.parameters(), *model.buffers()]
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]


def build_average(model: nn.Module, params: AverageParams) -> Average | None:
    """Return an average of the model's weights and buffers, starting with the first update; None for `none`.

    `mean` is the average of Polyak and Juditsky 1992. The decay of `ema` rises as (1 + n) / (10 + n) with the
    number of updates n, so that early weights do not dominate the average of a short training.
    """
    if params.name == "none":
        return None
    if params.name == "mean":
        return Average(model, lambda updates: 1 / (updates + 1))
    return Average(model, lambda updates: 1 - min(params.decay, (1 + updates) / (10 + updates)))
