"""What a sample costs and what the device can give."""

import os
import subprocess
import sys
import tempfile

import pytest
import torch
from torch import nn

from components.errors import PedigreeError
from components.training import device
from tests.conftest import ROOT

CPU = torch.device("cpu")


def test_the_cost_of_a_linear_layer_is_counted_as_by_hand():
    model, x = nn.Linear(16, 32, bias=False), torch.randn(4, 16, requires_grad=True)

    def forward_and_backward() -> None:
        model(x).sum().backward()

    # Three products of 4 x 16 x 32: the output, the gradient of the weights, the gradient of the input.
    assert device.flops(forward_and_backward) == 3 * 2 * 4 * 16 * 32


@pytest.mark.parametrize(("directions", "cell", "gates"), [(1, nn.LSTM, 4), (2, nn.LSTM, 4), (1, nn.GRU, 3)])
def test_the_cost_of_a_recurrent_layer_is_that_of_its_gates_products(directions, cell, gates):
    layer = cell(16, 32, 2, batch_first=True, bidirectional=directions == 2)
    x = torch.randn(4, 10, 16, requires_grad=True)

    def forward_and_backward() -> None:
        layer(x)[0].sum().backward()

    weights = directions * gates * 32 * ((16 + 32) + (directions * 32 + 32))
    assert device.flops(forward_and_backward) == pytest.approx(3 * 2 * 4 * 10 * weights, rel=0.05)


@pytest.mark.parametrize("directions", [1, 2])
def test_a_recurrent_layer_costs_on_a_gpu_what_it_costs_here(directions):
    layer, x = nn.LSTM(16, 32, 2, bidirectional=directions == 2), torch.randn(10, 4, 16)
    weights = [tuple(each.shape) for each in layer.parameters()]
    here = device.flops(lambda: layer(x))
    assert device._gate_flops_cudnn(tuple(x.shape), weights) == pytest.approx(here, rel=0.01)


@pytest.mark.parametrize("chosen", [False, True], ids=["usual", "chosen"])
@pytest.mark.parametrize("others", ["a folder of all", "a link"])
def test_code_that_others_could_have_compiled_does_not_run(others, chosen, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # which torch sets when it compiles
    if chosen:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "new" / "chosen"))
    device._expect_own_cache()
    made = tmp_path / "new" / "chosen" if chosen else next(tmp_path.iterdir())
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o775)  # as torch leaves it with a umask of 002
    device._expect_own_cache()
    assert made.stat().st_mode & 0o777 == 0o700
    if others == "a link":
        made.rename(tmp_path / "away")
        made.symlink_to(tmp_path / "away")
    else:
        made.chmod(0o777)
    remedy = "set TORCHINDUCTOR_CACHE_DIR to a" if chosen else "set TMPDIR to a"
    with pytest.raises(PedigreeError, match=rf"^train\.compile would run code from {made}, to which .* {remedy}"):
        device._expect_own_cache()


@pytest.mark.parametrize(
    ("of", "accumulates", "mode"),
    [("cpu", False, "default"), ("cuda", False, "reduce-overhead"), ("cuda", True, "default")],
)
def test_a_gpus_code_is_recorded_unless_gradients_add_up(of, accumulates, mode, monkeypatch):
    modes = []
    monkeypatch.setattr(device, "can_compile", lambda: True)
    monkeypatch.setattr(device, "_expect_own_cache", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda model, mode, dynamic: modes.append(mode))
    device.compiled(nn.Linear(1, 1), torch.device(of), accumulates)
    assert modes == [mode]


def test_to_compile_without_a_compiler_is_rejected_with_the_remedy(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(PedigreeError, match=r"needs a C\+\+ compiler .*, or set train\.compile to false"):
        device.compiled(nn.Linear(1, 1), CPU, accumulates=False)


def test_the_peak_is_of_the_order_of_what_a_plain_product_reaches():
    matrix = torch.randn(256, 256)
    plain = 2 * 256**3 * device._calls_per_second(lambda: matrix @ matrix, CPU, 0.05)
    assert device.peak_flops(CPU, "fp32", 0.1) > plain / 10


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [(None, 2, ("0", "1")), ("3, GPU-5", 2, ("3", "GPU-5")), ("0,9,1", 1, ("0",)), ("", 0, ()), (None, 0, ())],
)
def test_gpus_are_called_as_the_environment_calls_them_up_to_the_first_that_is_not_there(
    visible, count, names, monkeypatch
):
    monkeypatch.delenv(device.VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(device.VISIBLE, visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    assert device.gpus() == names
    assert [str(device.first_of([name])) for name in names] == [f"cuda:{index}" for index in range(count)]
    assert device.first_of([]) == CPU


def test_a_gpu_is_described_with_all_versions_that_may_change_the_last_digits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92400)
    monkeypatch.setattr(device, "_driver", lambda: "580.95.05")
    found = device.described(torch.device("cuda", 1), "bf16")
    assert found == "NVIDIA A100 (CUDA 13.0, cuDNN 92400, driver 580.95.05), bf16"


SETTLED = """
import os, torch
from components.training import device
torch.cuda.set_device = print
device.settle(torch.device("cpu"))
assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
device.settle(torch.device("cuda", 1))
assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
"""


def test_a_gpu_computes_the_same_each_time_and_a_cpu_is_left_as_it_is():
    env = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", SETTLED], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "cuda:1\n"), done.stderr


def test_auto_is_bf16_where_the_processor_has_it_and_else_bf16_is_rejected(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": True})
    assert [device.precision_on(CPU, asked) for asked in ("auto", "fp32", "bf16")] == ["bf16", "fp32", "bf16"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert [device.precision_on(CPU, asked) for asked in ("auto", "fp32")] == ["fp32", "fp32"]
    with pytest.raises(PedigreeError, match=r"train\.precision is bf16, .* processor has no .*: set it to auto"):
        device.precision_on(CPU, "bf16")


def test_bf16_is_autocast_and_fp32_is_left_alone():
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    with device.autocast(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with device.autocast(CPU, "fp32"):
        assert layer(x).dtype == torch.float32
    assert layer.weight.dtype == torch.float32
