"""Calls of torch's recurrent layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = Tensor | tuple[Tensor, ...] | None


def apply(layer: Callable[[Tensor, Any], Any], x: Tensor, state: State = None) -> tuple[Tensor, Any]:
    """Return the outputs and the last state of an LSTM, GRU or RNN; on a GPU, they are computed in fp32.

    Autocast to bf16 would compute them in fp16 (torch 2.14, aten/src/ATen/cudnn/AutocastRNN.cpp), in which many
    gradients are too small to represent, as the loss is not scaled. fp32 has bf16's range, and TF32's speed if that
    is allowed.

    Args:
        layer: The layer, or a function that calls it.
        x: (N, T, inputs), or (T, N, inputs) if the layer expects it.
        state: The state before the first position, as the layer takes it; None is zero.
    """
    if x.device.type == "cuda":
        with torch.autocast("cuda", enabled=False):
            outputs, last = layer(_at_least_fp32(x), _at_least_fp32(state))
    else:
        outputs, last = layer(x, state)
    return outputs, last


def _at_least_fp32(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_at_least_fp32, value))
    return None if value is None else value.to(torch.promote_types(value.dtype, torch.float32))
