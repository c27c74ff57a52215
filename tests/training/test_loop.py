"""The one loop, on a task so small that every number can be checked by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch._dynamo.utils import counters

from components import params
from components.contracts import Manifest, Prepared, Shard, StepOutput, Task, Worker
from components.datasets.batches import shuffled
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.tasks.image_classification.params import VisionParams
from components.training import loop, model_files, norms
from components.training.device import can_compile
from tests.conftest import BF16

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def split(name: str) -> Columns:
    generator = torch.Generator().manual_seed(len(name))
    x = torch.randn(48, 4, generator=generator)
    return Columns({"x": x, "y": x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])})


def step(model: nn.Module, batch: dict, values: VisionParams) -> StepOutput:
    losses = F.mse_loss(model(batch["x"]), batch["y"], reduction="none")[:, 0]
    return StepOutput(losses.sum(), len(losses))


def toy(augment=lambda batch, values: batch, dropout: float = 0.0, better: str = "less") -> Task:
    """Linear regression, as a task."""
    return Task(
        name="toy",
        params=VisionParams,
        embedded={},
        public_data={},
        prepare=None,
        load_split=lambda folder, name: split(name),
        build_model=lambda values, manifest: nn.Sequential(nn.Dropout(dropout), nn.Linear(4, 1)),
        augment=augment,
        step=step,
        better={"loss": better},
        predict=lambda model, batch, values: {"y": model(batch["x"])},
        outcomes=None,
        score=None,
        evaluate=None,
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
    "validation": {"every": 0, "samples": 0},
}


def fit(
    out: Path,
    task: Task | None = None,
    tell: Callable[[dict], None] = lambda event: None,
    rank: int = 0,
    world: int = 1,
    **train,
) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Train, `tell` of each event, and return the weights that were saved and the metrics of each validation."""
    overlay = params.Values({"models": {"digits": {"train": BASE}}}, {}).over(
        params.read(ROOT / "tests" / params.FILE)
    )
    overlay = params.Values({"models": {"digits": {"train": train}}}, {}).over(overlay)
    values = params.validate(VisionParams, overlay, ("models", "digits"))
    events: list[dict] = []
    out.mkdir(exist_ok=True)
    prepared = Prepared(out, Manifest(task="toy", splits={}, rejected=[], facts={}))
    worker = Worker(CPU, rank, world, lambda event: events.append(event) or tell(event))
    sources = {key: Path(named) for key, named in params.sources(values).items()}
    loop.fit(task or toy(), values, prepared, out, worker, sources)
    weights = {} if rank else load_file(out / model_files.WEIGHTS)
    return weights, [e["metrics"] for e in events if e["kind"] == "validation"]


def by_hand(updates: int) -> dict[str, torch.Tensor]:
    """Return the weights after plain gradient descent on the same batches, written out."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 1)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    values = SimpleNamespace(train=SimpleNamespace(batch_size=16, seed=0))
    for update in range(updates):
        batches = shuffled(split("train"), values, Shard(update // 3))
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
    weights, metrics = fit(tmp_path / "all", toy(better="more"), epochs=4)  # the worst epoch is the first
    first, _ = fit(tmp_path / "first", epochs=1)
    assert max(m["val/loss"] for m in metrics) == metrics[0]["val/loss"]
    for name in weights:
        assert torch.equal(weights[name], first[name])


def test_training_stops_when_patience_is_over(tmp_path):
    _, metrics = fit(tmp_path, toy(better="more"), epochs=20, patience=3)
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
    stored, _ = fit(tmp_path, average={"name": "mean", "start": 0.5})
    steps = [by_hand(updates) for updates in (6, 7, 8, 9)]  # of nine, the fifth's stretch begins before the half
    if_fifth = [by_hand(5), *steps]
    expected = {name: torch.stack([step[name] for step in if_fifth]).mean(0) for name in stored}
    for name, value in stored.items():
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


def started(*names: str) -> Task:
    """Return a task whose network has these weights from elsewhere: they are ones."""

    def build(values: VisionParams, manifest: Manifest) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def initialise(model: nn.Module, split: Columns, values: VisionParams, sources: dict) -> set[str]:
        for name in names:
            nn.init.ones_(model.get_parameter(name))
        return set(names)

    return replace(toy(), build_model=build, initialise=initialise)


BACKBONE = ("0.weight", "1.weight", "1.bias")
SLOW = {"optimizer": {"lr": 0.01}}
STATISTICS = {"1.running_mean": 0, "1.running_var": 1, "1.num_batches_tracked": 0}


def test_a_module_of_which_a_part_is_new_keeps_its_running_statistics_up_to_date(tmp_path):
    weights, _ = fit(tmp_path, started("1.weight"), epochs=1, init={"from": "a", "freeze": 1})
    assert torch.equal(weights["1.weight"], torch.ones(4))
    assert weights["1.num_batches_tracked"] == norms.BATCHES


def test_a_frozen_layer_without_statistics_stays_in_training_mode(tmp_path):
    """In evaluation mode cuDNN would compute no gradient through a recurrent layer."""
    modes: list[bool] = []

    class Layer(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            modes.append(self.training)
            return super().forward(x)

    def build(values: VisionParams, manifest: Manifest) -> nn.Module:
        return nn.Sequential(Layer(4, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def training(model: nn.Module, batch: dict, values: VisionParams) -> StepOutput:
        modes.clear()
        output = step(model, batch, values)
        assert modes == [model.training]
        return output

    task = replace(started(*BACKBONE), build_model=build, step=training)
    fit(tmp_path, task, epochs=1, init={"from": "a", "freeze": 1})


def test_without_an_epoch_the_weights_stay_those_it_started_from_and_are_validated(tmp_path):
    weights = {"1.weight": torch.full((1, 4), 0.5), "1.bias": torch.ones(1)}
    save_file(weights, tmp_path / "a.safetensors")
    init = {"from": str(tmp_path / "a.safetensors")}
    saved, (metrics,) = fit(tmp_path / "out", epochs=0, init=init)
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights.items())
    assert (metrics["epoch"], metrics["update"]) == (0, 0)
    val = split("val")
    error = val["x"] @ weights["1.weight"].T + weights["1.bias"] - val["y"]
    assert metrics["val/loss"] == pytest.approx(float(error.square().mean()))
    with pytest.raises(PedigreeError, match="epochs: 0 keeps the initial weights"):
        fit(tmp_path / "random", epochs=0)


def test_a_network_starts_from_the_tensors_of_a_file_that_fit_it(tmp_path):
    """What a task does that says nothing else of its start."""
    network, file = nn.Sequential(nn.Dropout(0), nn.Linear(4, 1)), tmp_path / "a.safetensors"
    saved_bias = torch.full((1,), 7.0)
    save_file({"1.bias": saved_bias, "1.weight": torch.ones(3, 4), "2.bias": torch.ones(1)}, file)
    before = network[1].weight.clone()
    assert loop.initialise(toy(), None, network, split("train"), {params.INIT: file}) == {"1.bias"}
    assert torch.equal(network[1].bias, saved_bias)
    assert torch.equal(network[1].weight, before)


def test_the_first_layer_moves_by_the_share_that_layer_decay_says(tmp_path):
    def build(values: VisionParams, manifest: Manifest) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))

    task, one = replace(toy(), build_model=build), {"epochs": 1, "batch_size": 48}
    torch.manual_seed(0)
    before = build(None, None).state_dict()
    moved = {}
    for decay in (1.0, 0.25):
        weights, metrics = fit(tmp_path / f"{decay}", task, **one, init={"layer_decay": decay})
        moved[decay] = {name: weights[name] - before[name] for name in before}
        assert metrics[0]["train/lr"] == 0.1
    for name, whole in moved[1.0].items():
        share = 0.25 if name.startswith("0.") else 1
        torch.testing.assert_close(moved[0.25][name], share * whole, rtol=1e-4, atol=1e-7)


@pytest.mark.long
@pytest.mark.skipif(not can_compile(), reason="this machine cannot compile")
def test_a_compiled_training_ends_with_the_same_weights(tmp_path):
    plain, _ = fit(tmp_path / "plain")
    before = counters["stats"]["unique_graphs"]
    compiled, _ = fit(tmp_path / "compiled", compile=True, accumulate=2)
    assert counters["stats"]["unique_graphs"] > before
    for name, expected in plain.items():
        torch.testing.assert_close(compiled[name], expected)


def test_several_workers_ask_about_twice_a_second_whether_a_checkpoint_is_due(monkeypatch):
    clock, answers = [1000.0], []
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop.dist, "broadcast", lambda answer, rank, group: answers.append(answer.tolist()))
    train = SimpleNamespace(checkpoint_seconds=4)
    run = SimpleNamespace(
        update=40, ask_at=0, asked=(0, -math.inf), saved_at=1000.0, train=train, worker=Worker(CPU), control="gloo"
    )
    due = []
    for _ in range(1000):
        run.update += 1
        clock[0] += 0.01
        if loop._due(run):
            due.append(clock[0] - run.saved_at)
            run.saved_at = clock[0]
    assert len(answers) == pytest.approx(1000 * 0.01 / 0.5, abs=3)
    assert due == pytest.approx([4.0, 4.0], abs=0.51)
    slow = len(answers)
    for _ in range(100):  # a question that comes late is followed by frequent ones
        run.update += 1
        clock[0] += 1.0
        loop._due(run)
    assert len(answers) - slow > 40


@BF16
def test_bf16_learns_as_fp32_does(tmp_path):
    _, fp32 = fit(tmp_path / "fp32", epochs=8)
    _, bf16 = fit(tmp_path / "bf16", epochs=8, precision="bf16")
    assert fp32[-1]["val/loss"] < 0.05 * fp32[0]["val/loss"]
    assert bf16[-1]["val/loss"] < 0.05 * bf16[0]["val/loss"]


@BF16
def test_augmentation_computes_in_fp32_while_the_network_computes_in_bf16(tmp_path):
    types = set()

    def augment(batch, values):
        types.add((batch["x"] @ torch.ones(4, 1)).dtype)
        return batch

    def computed(model, batch, values):
        types.add(model(batch["x"]).dtype if model.training else None)
        return step(model, batch, values)

    fit(tmp_path, replace(toy(augment), step=computed), epochs=1, precision="bf16")
    assert types == {torch.float32, torch.bfloat16, None}
