"""Batch norm in a short training: validation and the saved weights have statistics of their own weights."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from components.training import checkpoint, norms
from tests.training.test_checkpoint import numbers
from tests.training.test_loop import fit, split, toy


def normed():
    """The toy task with a batch norm, whose inputs are far from its first statistics."""

    def build(values, manifest):
        layer = nn.Linear(4, 4)
        nn.init.constant_(layer.bias, 50.0)
        return nn.Sequential(layer, nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))

    return replace(toy(), build_model=build)


def inputs_of_the_norm(weights):
    return split("train")["x"] @ weights["0.weight"].T + weights["0.bias"]


@pytest.mark.parametrize("average", ["none", "ema", "mean"])
def test_after_few_updates_the_saved_statistics_are_those_of_the_saved_weights(average, tmp_path):
    weights, metrics = fit(tmp_path, normed(), epochs=2, average={"name": average})
    parts = inputs_of_the_norm(weights)[_order(metrics)].split(norms.SAMPLES)[: norms.BATCHES]
    torch.testing.assert_close(weights["1.running_mean"], torch.stack([part.mean(0) for part in parts]).mean(0))
    torch.testing.assert_close(weights["1.running_var"], torch.stack([part.var(0) for part in parts]).mean(0))


def _order(metrics):
    best = min(metrics, key=lambda row: row["val/loss"])
    generator = torch.Generator().manual_seed(int(best["epoch"]) - 1)
    return torch.randperm(48, generator=generator)


def test_validation_in_a_short_training_changes_nothing_that_training_goes_on_with(tmp_path):
    fit(tmp_path / "plain", normed(), epochs=2)
    fit(tmp_path / "often", normed(), epochs=2, validation={"every": 1, "samples": 0})
    (_, plain), (_, often) = (
        checkpoint.load(folder, checkpoint.latest(folder)) for folder in (tmp_path / "plain", tmp_path / "often")
    )
    names = [name for name in plain if name.startswith("model.")]
    assert "model.1.running_mean" in names
    assert all(torch.equal(plain[name], often[name]) for name in names)


def test_a_short_training_killed_before_a_validation_ends_in_the_same_weights(tmp_path):
    whole, metrics = fit(tmp_path / "whole", normed(), epochs=3)
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path / "killed", normed(), killed_in_epoch_2, epochs=3, checkpoint_seconds=1e-9)
    again, rest = fit(tmp_path / "killed", normed(), epochs=3)
    assert numbers(rest) == numbers(metrics)[-len(rest) :]
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def killed_in_epoch_2(event):
    if event["kind"] == "progress" and event["epoch"] == 2:
        raise RuntimeError("killed")


def test_a_norm_that_is_frozen_has_the_statistics_that_it_was_loaded_with(tmp_path):
    before = {"1.weight": torch.ones(4), "1.bias": torch.zeros(4), "1.running_mean": torch.full((4,), 7.0)}
    save_file(before, tmp_path / "before.safetensors")
    init = {"from": str(tmp_path / "before.safetensors"), "freeze": 2}
    weights, _ = fit(tmp_path / "out", normed(), epochs=2, init=init, optimizer={"lr": 1e-30})
    assert torch.equal(weights["1.running_mean"], before["1.running_mean"])


def test_after_many_updates_the_running_averages_are_used(tmp_path):
    settings = {"epochs": 34, "validation": {"every": 102, "samples": 0}}
    weights, metrics = fit(tmp_path, normed(), **settings)
    (_, tensors) = checkpoint.load(tmp_path, checkpoint.latest(tmp_path))
    assert [row["update"] for row in metrics] == [102]
    assert torch.equal(weights["1.running_mean"], tensors["model.1.running_mean"])
