"""The device under a worker: precision, and how much of what it can do is used."""

import math
import os
import shutil
import sysconfig
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from components.contracts import Batch
from components.errors import PedigreeError


def default() -> torch.device:
    """Return the device of this process: the GPU that torch has chosen, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision_on(device: torch.device, asked: str) -> str:
    """Return bf16 or fp32, which `auto` leaves to the device: bf16 where it has instructions for that.

    Without them torch computes convolutions in software (on an AVX2 processor 9 GFLOP/s, 173 in fp32), and an LSTM
    not at all.

    Raises:
        PedigreeError: bf16 was asked for where there is none.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = any(there for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    if asked == "bf16" and not native:
        raise PedigreeError(
            f"train.precision is bf16, which this {'GPU' if device.type == 'cuda' else 'processor'} has no "
            "instructions for: set it to auto, which takes what there is, or to fp32"
        )
    return asked if asked != "auto" else "bf16" if native else "fp32"


def described(device: torch.device, precision: str) -> str:
    """Return what of a device the last bits of a training in this precision may depend on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads), {precision}"


def allow_tf32(device: torch.device, allowed: bool) -> None:
    """Let a GPU compute products of fp32 in TF32, or in fp32, which torch by itself does not do in convolutions."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a forward pass computes in `precision`, bf16 or fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def can_compile() -> bool:
    """Tell whether what torch.compile calls is there: a C++ compiler, and the headers of this Python."""
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    return shutil.which(os.environ.get("CXX", "g++")) is not None and headers.is_file()


def compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """Return what computes as the model does, on its weights, in code that torch makes for a shape of batch.

    On a GPU that code is recorded as CUDA graphs, where the network allows it (pytorch.org, "torch.compiler":
    reduce-overhead). Torch leaves recurrent layers as they are, and so it does all from the ninth shape on.

    Raises:
        PedigreeError: the machine cannot compile.
    """
    if not can_compile():
        raise PedigreeError(
            "train.compile needs a C++ compiler and Python's headers, one of which is not there: install them (in "
            "Debian g++ and python3-dev), or set train.compile to false"
        )
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    return cast(nn.Module, torch.compile(model, mode=mode, dynamic=False))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on the device, images in the memory format in which convolutions are fastest.

    A GPU copies by itself, while we go on, from pinned memory alone.
    """
    if device.type == "cuda":
        batch = {name: tensor if tensor.is_cuda else tensor.pin_memory() for name, tensor in batch.items()}
    return {name: _channels_last(tensor.to(device, non_blocking=True)) for name, tensor in batch.items()}


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def resident(split: Batch, device: torch.device) -> Batch:
    """Return the split on a GPU when it fills less than half of the free memory, else where it is."""
    if device.type != "cuda":
        return split
    free, _ = torch.cuda.mem_get_info(device)
    size = sum(tensor.numel() * tensor.element_size() for tensor in split.values())
    return {name: tensor.to(device) for name, tensor in split.items()} if size < free / 2 else split


def _gate_flops(*shapes: Any, **_: Any) -> int:
    """Count one layer's products of inputs and states with the gates' weights, one direction.

    oneDNN's layers are called with x (T, N, I), the weights (gates, I) and (gates, H), and more.
    """
    (steps, samples, _), inputs, states = shapes[:3]
    return int(2 * steps * samples * (math.prod(inputs) + math.prod(states)))


def _gate_flops_cudnn(*shapes: Any, **_: Any) -> int:
    """Count the same of cuDNN's layers, called with x (T, N, I) or (N, T, I) and all weights and biases."""
    x, weights = shapes[:2]
    return int(2 * math.prod(x[:-1]) * sum(math.prod(each) for each in weights if len(each) == 2))


def _gate_flops_cudnn_backward(*shapes: Any, **_: Any) -> int:
    return 2 * _gate_flops_cudnn(*shapes)


def _gate_flops_backward(*shapes: Any, **_: Any) -> int:
    """Count the gradients of both factors of each product."""
    return 2 * _gate_flops(*shapes)


_RECURRENT = {
    torch.ops.aten.mkldnn_rnn_layer: _gate_flops,
    torch.ops.aten.mkldnn_rnn_layer_backward: _gate_flops_backward,
    torch.ops.aten._cudnn_rnn: _gate_flops_cudnn,
    torch.ops.aten._cudnn_rnn_backward: _gate_flops_cudnn_backward,
}
"""What torch's own counter leaves out."""


def flops(forward_and_backward: Callable[[], None]) -> int:
    """Return the floating-point operations of one call, counting a multiply and an add as two."""
    with FlopCounterMode(display=False, custom_mapping=_RECURRENT) as counter:
        forward_and_backward()
    return int(counter.get_total_flops())


@cache
def peak_flops(device: torch.device, precision: str, seconds: float = 0.3) -> float:
    """Measure the most FLOP/s that this device gives to a large matrix product or a 3x3 convolution, once."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    image = torch.randn(32, 256, 16, 16, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return max(
        2 * side**3 * _calls_per_second(lambda: matrix @ matrix, device, seconds),
        2
        * 32
        * 16
        * 16
        * 256
        * 256
        * 9
        * _calls_per_second(lambda: F.conv2d(image, kernel, padding=1), device, seconds),
    )


@torch.inference_mode()
def _calls_per_second(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the best of many short stretches: a busy neighbour lowers a mean, never the peak."""

    def stretch(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    stretch(2)  # the first calls choose kernels and fill caches
    end, best = time.perf_counter() + seconds, float("inf")
    while time.perf_counter() < end:
        best = min(best, stretch(4) / 4)
    return 1 / best
