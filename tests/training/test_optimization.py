"""Optimizers, schedules and averages of the weights do what their papers say."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from components.params import AverageParams, OptimizerParams, TrainParams, read
from components.training.muon import Muon, orthogonalised
from components.training.optimization import (
    LAYER_FACTOR,
    Average,
    build_average,
    build_optimizers,
    learning_rate,
)

ROOT = Path(__file__).parents[2]


def optimizer(name="sgd", lr=0.5, momentum=0.9, weight_decay=0.01):
    return OptimizerParams(name=name, lr=lr, momentum=momentum, weight_decay=weight_decay)


def rates(name: str, warmup: float, updates: int = 100) -> list[float]:
    train = read(ROOT / "tests" / "params.yaml").tree["models"]["digits"]["train"]
    shared = {key: value for key, value in train.items() if key in TrainParams.model_fields}
    chosen = {"optimizer": optimizer(), "schedule": {"name": name, "warmup": warmup}}
    params = TrainParams.model_validate({**shared, **chosen})
    return [learning_rate(params, (update + 0.5) / updates) for update in range(updates)]


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "linear"])
def test_the_rate_rises_to_its_peak_and_falls_to_almost_nothing(name):
    seen = rates(name, warmup=0.3)
    top = seen.index(max(seen))
    assert max(seen) == pytest.approx(0.5, rel=0.01)
    assert 28 <= top <= 31
    assert seen[:top] == sorted(seen[:top])
    assert seen[top:] == sorted(seen[top:], reverse=True)
    assert 0 < seen[0] < 0.03
    assert 0 < seen[-1] < 0.004


def test_a_linear_schedule_falls_by_the_same_each_update():
    falls = np.diff(rates("linear", warmup=0.3)[30:])
    assert falls == pytest.approx(-0.5 / 70, rel=1e-6)


def test_a_constant_rate_stays_after_its_warm_up():
    assert rates("constant", warmup=0)[::33] == [0.5] * 4
    assert rates("constant", warmup=0.1)[10:] == [0.5] * 90


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "linear"])
def test_a_schedule_without_warm_up_starts_at_its_peak(name):
    assert rates(name, warmup=0)[0] == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_biases_and_norms_are_not_decayed(name):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    for built in build_optimizers(model, optimizer(name)):
        built.step()
    assert (model[0].weight < 1).all()
    for parameter in (model[0].bias, model[1].weight, model[1].bias):
        assert torch.equal(parameter, torch.ones(4))


def test_sgd_takes_nesterovs_step():
    weight = nn.Parameter(torch.ones(2, 2))
    model = nn.ParameterList([weight])
    (built,) = build_optimizers(model, optimizer(lr=0.1, momentum=0.9, weight_decay=0))
    for _ in range(2):
        weight.grad = torch.ones(2, 2)
        built.step()
    # Sutskever et al. 2013: velocities 1 and 1.9; steps g + 0.9 v = 1.9 and 2.71.
    assert torch.allclose(weight, torch.full((2, 2), 1 - 0.1 * (1.9 + 2.71)))


def test_frozen_weights_are_left_out():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    assert held("sgd", model) == [id(p) for p in model[1].parameters()]


def factors(model: nn.Module, decay: float, name: str = "sgd") -> dict[str, float]:
    """Return what the rate of each parameter, by its name, is multiplied by."""
    groups = [g for built in build_optimizers(model, optimizer(name), decay) for g in built.param_groups]
    found = {id(parameter): group[LAYER_FACTOR] for group in groups for parameter in group["params"]}
    return {name: found[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_each_layer_learns_at_a_fixed_share_of_the_rate_of_the_layer_after_it(name):
    layers = {
        "embedding": nn.Embedding(5, 3),
        "lstm": nn.LSTM(3, 4),
        "norm": nn.LayerNorm(4),
        "head": nn.Linear(4, 5),
    }
    model = nn.Sequential(OrderedDict(layers))
    found = factors(model, 0.5, name)
    shares = {"embedding": 0.25, "lstm": 0.5, "norm": 0.5, "head": 1.0}  # a norm is of the layer before it
    assert found == {name: shares[name.split(".")[0]] for name in found}
    assert set(factors(model, 1, name).values()) == {1}


def test_the_modules_of_one_numbered_block_are_one_layer():
    block = [nn.Sequential(OrderedDict(a=nn.Linear(3, 3), b=nn.Linear(3, 3))) for _ in range(3)]
    model = nn.Sequential(OrderedDict(stem=nn.Linear(3, 3), blocks=nn.Sequential(*block), head=nn.Linear(3, 2)))
    found = factors(model, 0.5)
    assert {found[f"blocks.0.{name}.weight"] for name in "ab"} == {0.125}
    assert [found[f"{layer}.weight"] for layer in ("stem", "blocks.1.a", "blocks.2.b", "head")] == [
        1 / 16,
        0.25,
        0.5,
        1,
    ]


def held(name: str, model: nn.Module) -> list[int]:
    """Return the parameters that the optimizers have, as often as they have them."""
    groups = [group for built in build_optimizers(model, optimizer(name)) for group in built.param_groups]
    return [id(parameter) for group in groups for parameter in group["params"]]


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_every_trainable_parameter_is_with_one_optimizer(name):
    model = nn.Sequential(nn.Embedding(5, 3), nn.LSTM(3, 4), nn.Linear(4, 5), nn.Conv2d(1, 2, 3))
    assert sorted(held(name, model)) == sorted(id(parameter) for parameter in model.parameters())


def test_muon_has_the_matrices_and_filters_between_hidden_layers_alone():
    model = nn.Sequential(
        *(nn.Embedding(5, 3), nn.LSTM(3, 4), nn.Linear(4, 4)),
        *(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Linear(4, 5)),
    )
    muon, adamw = build_optimizers(model, optimizer("muon"))
    matrices = {id(p) for group in muon.param_groups for p in group["params"]}
    hidden = (model[1].weight_ih_l0, model[1].weight_hh_l0, model[2].weight, model[3].weight)
    assert matrices == {id(p) for p in hidden}
    assert isinstance(adamw, torch.optim.AdamW)


def test_a_network_without_such_matrices_is_adamws_alone():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4, 2))
    (adamw,) = build_optimizers(model, optimizer("muon"))
    assert {id(p) for group in adamw.param_groups for p in group["params"]} == set(map(id, model.parameters()))


def test_muon_moves_a_matrix_by_an_orthogonal_one_of_adamws_size():
    torch.manual_seed(0)
    layer = nn.Linear(64, 32, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(32, 64)
    muon, _ = build_optimizers(nn.Sequential(layer, nn.Linear(32, 2)), optimizer("muon", lr=0.1, weight_decay=0))
    muon.step()
    step = (layer.weight - before).detach()
    singular = torch.linalg.svdvals(step)
    assert singular.min() > 0.5 * singular.max()  # five Newton-Schulz steps come near, not to it
    assert step.square().mean().sqrt() == pytest.approx(0.2 * 0.1, rel=0.2)


def test_the_average_forgets_a_random_beginning_and_then_moves_slowly():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    average = build_average(model, AverageParams(name="ema", decay=0.99, start=0))
    history = []
    for step in range(3000):
        model[0].weight.data.fill_(float(step >= 1000))
        average.update()
        history.append(average.module[0].weight.item())
    assert history[999] == pytest.approx(0, abs=1e-6)
    assert history[1000] == pytest.approx(0.01, rel=0.01)
    assert history[1099] == pytest.approx(1 - 0.99**100, rel=0.01)


def test_the_mean_weighs_all_updates_alike():
    model = nn.Linear(1, 1, bias=False)
    average = build_average(model, AverageParams(name="mean", decay=0, start=0))
    for value in (1.0, 2.0, 6.0):
        model.weight.data.fill_(value)
        average.update()
    assert average.module.weight.item() == pytest.approx(3)


def test_the_average_includes_running_statistics():
    model = nn.BatchNorm1d(1)
    average = build_average(model, AverageParams(name="ema", decay=0.5, start=0))
    model.running_mean.fill_(8.0)
    model.num_batches_tracked.fill_(7)
    average.update()
    average.update()
    assert 0 < float(average.module.running_mean) <= 8
    assert int(average.module.num_batches_tracked) == 7


def averages(params: AverageParams) -> tuple[AveragedModel, Average, nn.Module]:
    """Return torch's average and ours after the same updates of a model, and the model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    ours = build_average(model, params)

    def share(updates: int) -> float:
        return 1 / (updates + 1) if params.name == "mean" else 1 - min(params.decay, (1 + updates) / (10 + updates))

    def averaged(old: list, new: list, updates: torch.Tensor) -> None:
        if old[0].is_floating_point():
            torch._foreach_lerp_(old, new, share(int(updates)))
        else:
            torch._foreach_copy_(old, new)

    theirs = AveragedModel(model, multi_avg_fn=torch.no_grad()(averaged), use_buffers=True)
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 3))
        ours.update()
        theirs.update_parameters(model)
    return theirs, ours, model


@pytest.mark.parametrize(
    "params", [AverageParams(name="ema", decay=0.9, start=0), AverageParams(name="mean", decay=0, start=0)]
)
def test_the_average_is_to_the_last_bit_that_of_torchs_averaged_model(params):
    theirs, ours, model = averages(params)
    restored = build_average(model, params)
    restored.load_state_dict(theirs.state_dict())
    for average in (ours, restored):
        found = average.state_dict()
        assert list(found) == list(theirs.state_dict())
        assert all(torch.equal(found[name], each) for name, each in theirs.state_dict().items())


@pytest.mark.parametrize("shape", [(24, 8), (8, 24)])
def test_muon_moves_a_matrix_as_torchs_own_does(shape):
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
    chosen = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.5}
    muon = Muon([{"params": [ours]}], **chosen)
    torchs = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **chosen)
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        muon.step()
        torchs.step()
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0.1)  # torch's has the 8 bits of bf16


def test_muon_treats_the_filters_of_a_convolution_as_the_rows_of_a_matrix():
    torch.manual_seed(0)
    gradients = torch.randn(3, 6, 4, 3, 3)
    found = orthogonalised(gradients.flatten(2))
    for each, alone in zip(found, gradients, strict=True):
        filters = nn.Parameter(torch.zeros(6, 4, 3, 3))
        filters.grad = alone
        Muon([{"params": [filters]}], lr=1.0, momentum=0.0, weight_decay=0.0).step()
        torch.testing.assert_close(filters.flatten(1), -0.2 * 36**0.5 * each)
