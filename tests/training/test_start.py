"""Training that starts from other weights: what is frozen stays, and earlier layers learn more slowly."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from components.contracts import Task
from components.errors import PedigreeError
from components.training import checkpoint
from tests.training.test_checkpoint import EVERY_UPDATE, OPTIMIZERS, KilledError, numbers
from tests.training.test_loop import fit, step, toy

ADAMW = OPTIMIZERS["adamw"]
SCALED = "body.3.weight"
"""No training changes it."""


class Unscaled(nn.BatchNorm1d):
    """A batch norm that only a shift of its own is trained of."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.weight.requires_grad_(False)


def network(outputs: int = 1) -> nn.Module:
    """Return a body with every kind of running statistics, and a head."""
    body = nn.Sequential(
        nn.Linear(4, 8),
        nn.BatchNorm1d(8),
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False)),
        Unscaled(8),
        nn.Dropout(0.1),
    )
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(8, outputs)))


def task() -> Task:
    return replace(toy(), build_model=lambda values, manifest: network())


@pytest.fixture
def source(tmp_path) -> Path:
    """Weights of such a body whose head does not fit."""
    torch.manual_seed(5)
    other = network(outputs=2)
    for name, tensor in other.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 2)
    save_file(other.state_dict(), tmp_path / "source.safetensors")
    return tmp_path / "source.safetensors"


def trained(folder: Path, source: Path, freeze: int, its_task: Task | None = None, **settings):
    init = {"from": str(source), "freeze": freeze, "layer_decay": 1}
    return fit(folder, its_task or task(), init=init, **{"optimizer": ADAMW, **settings})


def body(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith("body.")}


def changed(weights: dict[str, torch.Tensor], source: Path) -> set[str]:
    """Return the names of the tensors of the body that are not those of the source."""
    with checkpoint.safe_open(source, "pt") as file:
        return {name for name, tensor in body(weights).items() if not torch.equal(tensor, file.get_tensor(name))}


def test_frozen_weights_and_their_statistics_stay_while_the_head_learns(tmp_path, source):
    before, _ = trained(tmp_path / "before", source, 1, epochs=1, optimizer={**ADAMW, "lr": 1e-30})
    after, metrics = trained(tmp_path / "after", source, 8, epochs=8, optimizer={**ADAMW, "lr": 0.1})
    assert changed(after, source) == set()
    assert not torch.equal(after["head.weight"], before["head.weight"])
    assert metrics[-1]["val/loss"] < 0.8 * metrics[0]["val/loss"]


def test_after_its_epochs_what_was_frozen_is_trained_with_its_statistics(tmp_path, source):
    weights, metrics = trained(tmp_path, source, 2, epochs=3)
    assert min(metrics, key=lambda row: row["val/loss"])["epoch"] == 3, "these are the weights of the last epoch"
    assert changed(weights, source) == body(weights).keys() - {SCALED}


def test_without_freezing_all_that_came_from_elsewhere_is_trained_at_once(tmp_path, source):
    weights, _ = trained(tmp_path, source, 0, epochs=1)
    assert changed(weights, source) == body(weights).keys() - {SCALED}


def test_while_it_is_frozen_a_body_keeps_its_dropout_and_validation_is_as_ever(tmp_path, source):
    modes = []

    def watched(model: nn.Module, batch: dict, values: object) -> object:
        norms = {module.training for module in model.body.modules() if isinstance(module, nn.BatchNorm1d)}
        modes.append((model.training, norms, model.body[4].training))
        return step(model, batch, values)

    trained(tmp_path, source, 1, replace(task(), step=watched), epochs=2)
    frozen, judged, free = (True, {False}, True), (False, {False}, False), (True, {True}, True)
    recomputed = (False, {True}, False)  # the norms' statistics, from two batches
    expected = [*[frozen] * 3, *[judged] * 3, *[free] * 3, *[recomputed] * 2, *[judged] * 3]
    assert modes[1:] == expected  # its cost is measured first


@pytest.mark.parametrize("update", [2, 4, 6])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_killed_in_or_after_its_frozen_epochs_ends_in_the_same_weights(
    tmp_path, source, update, optimizer
):
    calls = 0

    def killing_step(model: nn.Module, batch: dict, values: object) -> object:
        nonlocal calls
        calls += model.training and len(batch["x"]) == 16
        if calls == update:
            raise KilledError
        return step(model, batch, values)

    settings = {"epochs": 3, "optimizer": OPTIMIZERS[optimizer], "checkpoint_seconds": EVERY_UPDATE}
    whole, metrics = trained(tmp_path / "whole", source, 1, **settings)
    with pytest.raises(KilledError):
        trained(tmp_path / "killed", source, 1, replace(task(), step=killing_step), **settings)
    again, rest = trained(tmp_path / "killed", source, 1, **settings)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert numbers(rest) == numbers(metrics)[-len(rest) :]


def test_to_freeze_all_of_a_network_is_rejected_with_the_remedy(tmp_path):
    save_file(network().state_dict(), tmp_path / "whole.safetensors")
    with pytest.raises(PedigreeError, match=r"train\.init\.freeze 2: all of this network's .*: set it to 0"):
        trained(tmp_path / "out", tmp_path / "whole.safetensors", 2)


def test_a_task_says_itself_which_weights_came_from_elsewhere(tmp_path, source):
    def initialise(model: nn.Module, split: object, values: object, sources: dict) -> set[str]:
        assert set(sources.values()) == {source}
        assert len(split) == 48
        nn.init.ones_(model.body[0].weight)
        return {"body.0.weight"}

    weights, _ = trained(tmp_path / "out", source, 1, replace(task(), initialise=initialise), epochs=1)
    assert torch.equal(weights["body.0.weight"], torch.ones(8, 4))
    assert not torch.equal(weights["body.0.bias"], torch.zeros(8))


def deep() -> Task:
    def build(values: object, manifest: object) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))

    return replace(toy(), build_model=build)


def moved(folder: Path, decay: float) -> dict[str, torch.Tensor]:
    """Return by how much one update of plain gradient descent moves each weight."""
    torch.manual_seed(0)
    before = deep().build_model(None, None).state_dict()
    init = {"from": "random", "freeze": 0, "layer_decay": decay}
    after, metrics = fit(folder, deep(), init=init, epochs=1, batch_size=48)
    assert metrics[0]["train/lr"] == pytest.approx(0.1), "the rate of the last layer"
    return {name: after[name] - before[name] for name in before}


def test_each_layer_learns_at_a_share_of_the_rate_of_the_layer_after_it(tmp_path):
    alike, decayed = moved(tmp_path / "alike", 1), moved(tmp_path / "decayed", 0.5)
    for name, factor in {"0": 0.25, "2": 0.5, "4": 1}.items():
        for each in (f"{name}.weight", f"{name}.bias"):
            assert alike[each].norm() > 1e-3
            torch.testing.assert_close(decayed[each], factor * alike[each], rtol=1e-3, atol=1e-7)
