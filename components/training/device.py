"""The device of a worker: repeatable computation, precision, compilation, memory, and measurements of speed."""

import ctypes
import math
import os
import re
import shutil
import stat
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from components.contracts import Batch
from components.errors import PedigreeError

CPU = torch.device("cpu")
VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable that limits a process to some GPUs, named by index or by UUID."""


def gpus() -> tuple[str, ...]:
    """Return this process's GPUs, as `VISIBLE` names them; counting them takes none of their memory."""
    if not torch.cuda.is_available():
        return ()
    count, named = torch.cuda.device_count(), os.environ.get(VISIBLE)
    names = map(str, range(count)) if named is None else map(str.strip, named.split(","))
    return tuple(names)[:count]


def first_of(names: Sequence[str]) -> torch.device:
    """Return the device of the first of these names of `gpus`, or the CPU if there are none."""
    return torch.device("cuda", gpus().index(names[0])) if names else CPU


def settle(device: torch.device) -> None:
    """Make a GPU the current one of this thread, and its results the same each time as far as torch can.

    Operations that have no deterministic implementation warn and run (docs/architecture.md, "Training"). This must
    precede the first computation on the GPU, when cuBLAS reads the size of its workspace: with a fixed one, its
    results do not depend on what runs beside it (docs.nvidia.com/cuda/cublas, "Results reproducibility").
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(device)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # It helps to find uses of uninitialized memory, and takes time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def release(device: torch.device) -> None:
    """Give a GPU's memory that no tensor uses to other processes, as far as torch can: its context stays."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def precision_on(device: torch.device, asked: str) -> str:
    """Return bf16 or fp32; `auto` is bf16 if the device has instructions for it.

    Without such instructions, torch computes bf16 convolutions in software (9 GFLOP/s on an AVX2 processor, against
    173 in fp32) and does not support bf16 LSTMs at all.

    Raises:
        PedigreeError: bf16 was requested, and the device has no instructions for it.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities().items()
        native = any(present for name, present in capabilities if name.endswith("bf16"))
    if asked == "bf16" and not native:
        raise PedigreeError(
            f"train.precision is bf16, but this {'GPU' if device.type == 'cuda' else 'processor'} has no bf16 "
            "instructions: set it to auto or fp32"
        )
    return asked if asked != "auto" else "bf16" if native else "fp32"


def described(device: torch.device, precision: str) -> str:
    """Return a description of everything about the device that can affect the bits of a result."""
    if device.type == "cuda":
        versions = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, driver {_driver()}"
        return f"{torch.cuda.get_device_name(device)} ({versions}), {precision}"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads), {precision}"


@cache
def _driver() -> str:
    """Return the version of NVIDIA's driver, which torch does not tell, or "unknown" without its library."""
    text = ctypes.create_string_buffer(80)  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE of nvml.h
    with suppress(OSError):
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        nvml.nvmlInit_v2()
        nvml.nvmlSystemGetDriverVersion(text, len(text))
    return text.value.decode() or "unknown"


def allow_tf32(device: torch.device, allowed: bool) -> None:
    """Allow or forbid a GPU to compute fp32 products in TF32; by default torch allows it for convolutions only."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return a context manager in which a forward pass computes in `precision`, bf16 or fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def can_compile() -> bool:
    """Return whether torch.compile finds what it needs: a C++ compiler and this Python's headers."""
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    return shutil.which(os.environ.get("CXX", "g++")) is not None and headers.is_file()


def compiled(model: nn.Module, device: torch.device, accumulates: bool) -> nn.Module:
    """Return a compiled model that shares the model's weights; code is generated for each shape of batch.

    On a GPU the code is recorded as CUDA graphs if the network allows it (pytorch.org, "torch.compiler":
    reduce-overhead). Torch does not compile recurrent layers, and compiles nothing from the ninth shape on.

    Args:
        model: The network.
        device: Its device.
        accumulates: Whether gradients of several passes, or of several workers, are added up. A CUDA graph would
            overwrite those of the pass before, so the code is then not recorded.

    Raises:
        PedigreeError: a compiler or Python's headers are missing, or others can write to torch's cache.
    """
    if not can_compile():
        raise PedigreeError(
            "train.compile needs a C++ compiler and Python's headers: install them (g++ and python3-dev on "
            "Debian), or set train.compile to false"
        )
    _expect_own_cache()
    mode = "reduce-overhead" if device.type == "cuda" and not accumulates else "default"
    return cast(nn.Module, torch.compile(model, mode=mode, dynamic=False))


def _expect_own_cache() -> None:
    """Make the folders from which torch.compile runs the code of earlier trainings, if they are missing.

    Torch would use one that another account has put there: its name below /tmp is known. Some of its caches are
    there even if TORCHINDUCTOR_CACHE_DIR names another folder (torch/_inductor/codecache.py, `_HEADER_DIR`). With
    a umask of 002, torch lets the group write to what it makes: that is taken back.

    Raises:
        PedigreeError: one is another account's, or a link, or everyone can write to it.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # as slow as torch.compile's own import

    usual, chosen = default_cache_dir(), os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    for name, variable in ((usual, "TMPDIR"), (chosen or usual, "TORCHINDUCTOR_CACHE_DIR")):
        folder = Path(name).absolute()
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & stat.S_IWOTH:
            raise PedigreeError(
                f"train.compile would run code from {folder}, to which others can write: remove it, set {variable} "
                "to a folder of your own, or set train.compile to false"
            )
        if status.st_mode & stat.S_IWGRP:
            folder.chmod(0o700)


@contextmanager
def explaining_memory(remedy: str) -> Iterator[None]:
    """Explain that a GPU's memory was too small for the block.

    Args:
        remedy: What to do, such as: lower train.batch_size (now 64).

    Raises:
        PedigreeError: it was, with the figures that torch gives.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PedigreeError(f"{_shortage(str(error))}: {remedy}") from error


_ASKED = re.compile(r"allocate (\S+ \w+)\.(?s:.*?)total capacity of (\S+ \w+) of which (\S+ \w+) is free")
"""Figures in torch's message (c10/cuda/CUDACachingAllocator.cpp)."""


def _shortage(text: str) -> str:
    """Return what torch says of a lack of memory as the beginning of a sentence."""
    if found := _ASKED.search(text):
        asked, total, free = found.groups()
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "the GPU"
        return f"{name} has too little memory: {asked} were asked for, and of {total} there are {free} free"
    return f"the GPU has too little memory ({text.splitlines()[0] if text else 'torch gives no figures'})"


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on the device."""
    if device.type == "cuda":
        batch = pinned(batch)
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def pinned(batch: Batch) -> Batch:
    """Return the batch in pinned memory, as other copies to a GPU are not asynchronous; or as it is on a GPU."""
    return {name: tensor if tensor.is_cuda else tensor.pin_memory() for name, tensor in batch.items()}


def _gate_flops(*shapes: Any, **_: Any) -> int:
    """Count the products of inputs and states with the gates' weights, for one direction of a oneDNN layer.

    The arguments are x (T, N, I), the weights (gates, I) and (gates, H), and others that do not matter here.
    """
    (steps, samples, _), inputs, states = shapes[:3]
    return int(2 * steps * samples * (math.prod(inputs) + math.prod(states)))


def _gate_flops_cudnn(*shapes: Any, **_: Any) -> int:
    """Count the same for cuDNN, whose arguments are x (T, N, I) or (N, T, I) and all weights and biases."""
    x, weights = shapes[:2]
    return int(2 * math.prod(x[:-1]) * sum(math.prod(each) for each in weights if len(each) == 2))


def _gate_flops_cudnn_backward(*shapes: Any, **_: Any) -> int:
    return 2 * _gate_flops_cudnn(*shapes)


def _gate_flops_backward(*shapes: Any, **_: Any) -> int:
    """Count the gradients with respect to both factors of each product."""
    return 2 * _gate_flops(*shapes)


_RECURRENT = {
    torch.ops.aten.mkldnn_rnn_layer: _gate_flops,
    torch.ops.aten.mkldnn_rnn_layer_backward: _gate_flops_backward,
    torch.ops.aten._cudnn_rnn: _gate_flops_cudnn,
    torch.ops.aten._cudnn_rnn_backward: _gate_flops_cudnn_backward,
}
"""Operations that torch's own counter does not count."""


def flops(forward_and_backward: Callable[[], None]) -> int:
    """Return the floating-point operations of one call, counting a multiply and an add as two."""
    with FlopCounterMode(display=False, custom_mapping=_RECURRENT) as counter:
        forward_and_backward()
    return int(counter.get_total_flops())


@cache
def peak_flops(device: torch.device, precision: str, seconds: float = 0.3) -> float:
    """Measure the highest FLOP/s that the device reaches in a large matrix product or a 3x3 convolution."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    image = torch.randn(32, 256, 16, 16, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    matrix_product, convolution = 2 * side**3, 2 * image.numel() * kernel[:, 0].numel()
    return max(
        matrix_product * _calls_per_second(lambda: matrix @ matrix, device, seconds),
        convolution * _calls_per_second(lambda: F.conv2d(image, kernel, padding=1), device, seconds),
    )


@torch.inference_mode()
def _calls_per_second(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the best rate of many short runs: other load on the machine lowers a mean, but not the best."""

    def run(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    run(2)  # the first calls choose kernels and fill caches
    end, best = time.perf_counter() + seconds, float("inf")
    while time.perf_counter() < end:
        best = min(best, run(4) / 4)
    return 1 / best
