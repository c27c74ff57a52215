"""The one loop, on a task so small that every number can be checked by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.utils import counters

from components import params
from components.batches import in_order, shuffled
from components.contracts import Manifest, Plan, Prepared, StepOutput, Task, Workers
from components.training import loop, saved
from components.training.device import can_compile
from components.vision.params import VisionParams
from tests.conftest import BF16

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def split(name: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(name))
    x = torch.randn(48, 4, generator=generator)
    return {"x": x, "y": x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])}


def step(model: nn.Module, batch: dict, values: VisionParams) -> StepOutput:
    losses = F.mse_loss(model(batch["x"]), batch["y"], reduction="none")[:, 0]
    return StepOutput(losses.mean(), {"loss": losses.detach().double().sum()}, len(losses))


def toy(augment=lambda batch, values: batch, dropout: float = 0.0) -> Task:
    """Linear regression, as a task."""
    return Task(
        name="toy",
        params=VisionParams,
        default_data=None,
        public_data={},
        prepare=None,
        build_model=lambda values, manifest: nn.Sequential(nn.Dropout(dropout), nn.Linear(4, 1)),
        initialise=lambda model, values, split: None,
        load_split=lambda folder, name: split(name),
        train_batches=shuffled,
        eval_batches=in_order,
        augment=augment,
        step=step,
        metrics=lambda sums, count: {"loss": sums["loss"] / count},
        predict=lambda model, batch: {"y": model(batch["x"])},
        evaluate=None,
        outcomes=None,
        scale=float,
        readable=frozenset(),
        score="loss",
        better="less",
        served=None,
        load_predict=None,
    )


BASE = {
    "epochs": 3,
    "batch_size": 16,
    "precision": "fp32",
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0},
    "schedule": {"name": "constant", "warmup": 0.0},
    "clip_norm": 0.0,
    "average": {"name": "none"},
    "best_metric": "loss",
    "best_mode": "min",
}


def fit(
    out: Path, task: Task | None = None, tell: Callable[[dict], None] = lambda event: None, **train
) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Train, `tell` of each event, and return the weights that were kept and the metrics of each epoch."""
    overlay = params.Values({"tasks": {"vision": {"train": BASE}}}, {}).over(params.read(ROOT / params.FILE))
    overlay = params.Values({"tasks": {"vision": {"train": train}}}, {}).over(overlay)
    values = params.validate(VisionParams, overlay, ("tasks", "vision"))
    events: list[dict] = []
    out.mkdir(exist_ok=True)
    prepared = Prepared(out, Manifest(task="toy", splits={}, refused=[], facts={}))
    loop.fit(task or toy(), values, prepared, out, Workers(CPU, emit=lambda e: events.append(e) or tell(e)))
    return load_file(out / saved.WEIGHTS), [e["metrics"] for e in events if e["kind"] == "epoch"]


def by_hand(updates: int) -> dict[str, torch.Tensor]:
    """Return the weights after plain gradient descent on the same batches, written out."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 1)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    values = SimpleNamespace(train=SimpleNamespace(batch_size=16, seed=0))
    for update in range(updates):
        batches = shuffled(split("train"), values, Plan(update // 3))
        batch = batches[update % 3]
        error = batch["x"] @ weight.T + bias - batch["y"]  # (N, 1)
        weight = weight - 0.1 * 2 * (error * batch["x"]).mean(0, keepdim=True)
        bias = bias - 0.1 * 2 * error.mean(0)
    return {"1.weight": weight, "1.bias": bias}


def test_the_loop_is_gradient_descent(tmp_path):
    weights, _ = fit(tmp_path)
    for name, expected in by_hand(9).items():
        torch.testing.assert_close(weights[name], expected)


def test_a_batch_in_pieces_makes_the_same_update_as_the_whole(tmp_path):
    whole, _ = fit(tmp_path / "whole")
    pieces, _ = fit(tmp_path / "pieces", accumulate=4)
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name])


def test_the_gradient_is_clipped_to_its_norm(tmp_path):
    before, _ = fit(tmp_path / "before", optimizer={"lr": 1e-30}, epochs=1)
    after, _ = fit(tmp_path / "after", clip_norm=0.01, epochs=1)
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm()
    assert 0 < moved <= 3 * 0.1 * 0.01 + 1e-7  # three updates at rate 0.1


def test_dropout_and_augmentation_are_the_same_numbers_in_every_run_of_a_seed(tmp_path):
    def noisy(batch: dict, values: VisionParams) -> dict:
        return {**batch, "x": batch["x"] + torch.randn_like(batch["x"])}

    task = toy(noisy, dropout=0.3)
    first, _ = fit(tmp_path / "first", task)
    torch.rand(100)  # whatever else drew numbers in this process
    second, _ = fit(tmp_path / "second", task)
    other, _ = fit(tmp_path / "other", task, seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_the_kept_weights_are_those_of_the_best_epoch_not_the_last(tmp_path):
    weights, metrics = fit(tmp_path / "all", epochs=4, best_mode="max")  # the worst epoch is the first
    first, _ = fit(tmp_path / "first", epochs=1)
    assert max(m["val/loss"] for m in metrics) == metrics[0]["val/loss"]
    for name in weights:
        assert torch.equal(weights[name], first[name])


def test_training_stops_when_patience_is_over(tmp_path):
    _, metrics = fit(tmp_path, epochs=20, best_mode="max", patience=3)
    assert len(metrics) == 4


def test_the_moving_average_is_what_is_validated_and_kept(tmp_path):
    plain, _ = fit(tmp_path / "plain")
    averaged, metrics = fit(tmp_path / "averaged", average={"name": "ema", "decay": 0.9})
    assert not torch.equal(plain["1.weight"], averaged["1.weight"])
    model = nn.Linear(4, 1)
    model.load_state_dict({name.removeprefix("1."): value for name, value in averaged.items()})
    val = split("val")
    assert metrics[-1]["val/loss"] == pytest.approx(F.mse_loss(model(val["x"]), val["y"]).item(), rel=1e-5)


def test_averaged_sgd_keeps_the_mean_of_the_weights_since_its_start(tmp_path):
    kept, _ = fit(tmp_path, best_mode="min", average={"name": "mean", "start": 0.5})
    steps = [by_hand(updates) for updates in (6, 7, 8, 9)]  # of nine, the fifth's stretch begins before the half
    if_fifth = [by_hand(5), *steps]
    expected = {name: torch.stack([step[name] for step in if_fifth]).mean(0) for name in kept}
    for name, value in kept.items():
        torch.testing.assert_close(value, expected[name])


def test_what_a_step_carries_over_comes_with_the_epochs_next_batch(tmp_path):
    seen: list[tuple[int, list[float] | None]] = []

    def counting(model: nn.Module, batch: dict, values: VisionParams) -> StepOutput:
        output = step(model, batch, values)
        if not model.training:
            return output
        before = batch.get("steps")
        seen.append((len(batch["x"]), None if before is None else before.tolist()))
        start = torch.zeros(len(batch["x"])) if before is None else before
        return replace(output, carry={"steps": start + torch.arange(len(batch["x"]))})

    task = replace(toy(), step=counting)
    fit(tmp_path / "whole", task, epochs=2)
    first = seen[1:]  # before training its cost is measured
    up = list(range(16))
    assert first == 2 * [(16, None), (16, up), (16, [2 * i for i in up])]
    seen.clear()
    fit(tmp_path / "pieces", task, epochs=1, accumulate=2)
    halves = [i % 8 for i in range(16)]
    assert seen[1:] == [(8, None), (8, None), *[(8, part) for k in (1, 2) for part in _halves(halves, k)]]


def _halves(carried: list[int], times: int) -> list[list[float]]:
    return [[times * i for i in carried[:8]], [times * i for i in carried[8:]]]


def test_validation_counts_every_sample_once(tmp_path):
    weights, metrics = fit(tmp_path, epochs=1, batch_size=10, optimizer={"lr": 1e-30})
    model = nn.Linear(4, 1)
    model.load_state_dict({name.removeprefix("1."): value for name, value in weights.items()})
    val = split("val")
    assert metrics[0]["val/loss"] == pytest.approx(F.mse_loss(model(val["x"]), val["y"]).item(), rel=1e-6)


@pytest.mark.skipif(not can_compile(), reason="this machine cannot compile")
def test_a_compiled_training_ends_with_the_same_weights(tmp_path):
    plain, _ = fit(tmp_path / "plain")
    before = counters["stats"]["unique_graphs"]
    compiled, _ = fit(tmp_path / "compiled", compile=True)
    assert counters["stats"]["unique_graphs"] > before
    for name, expected in plain.items():
        torch.testing.assert_close(compiled[name], expected)


@BF16
def test_bf16_learns_as_fp32_does(tmp_path):
    _, fp32 = fit(tmp_path / "fp32", epochs=8)
    _, bf16 = fit(tmp_path / "bf16", epochs=8, precision="bf16")
    assert fp32[-1]["val/loss"] < 0.05 * fp32[0]["val/loss"]
    assert bf16[-1]["val/loss"] < 0.05 * bf16[0]["val/loss"]
