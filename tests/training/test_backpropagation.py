"""The gradients that training descends: by hand, by autograd, and by differences of the loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from components.images.networks.normalize import Normalize
from components.images.networks.resnet import ResNet
from components.params import read, validate
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.train import step

PARAMS = validate(VisionParams, read(Path(__file__).parents[1] / "params.yaml"), ("models", "digits"))
SAMPLES, INPUTS, HIDDEN, CLASSES = 6, 5, 4, 3


def two_layers():
    """Inputs, labels, and the weights of a network: linear, sigmoid, linear; all float64."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(SAMPLES, INPUTS)), random.integers(CLASSES, size=SAMPLES)
    shapes = {"w1": (HIDDEN, INPUTS), "b1": (HIDDEN,), "w2": (CLASSES, HIDDEN), "b2": (CLASSES,)}
    return x, y, {name: random.normal(size=shape) for name, shape in shapes.items()}


def loss(x, y, w1, b1, w2, b2):
    logits = F.linear(torch.sigmoid(F.linear(x, w1, b1)), w2, b2)
    return F.cross_entropy(logits, y)


def by_autograd(x, y, weights):
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    loss(torch.tensor(x), torch.tensor(y), **leaves).backward()
    return {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def by_the_chain_rule(x, y, weights):
    """Rumelhart, Hinton and Williams 1986, with the softmax's cross-entropy for the squared error."""
    hidden = 1 / (1 + np.exp(-(x @ weights["w1"].T + weights["b1"])))  # (N, H)
    logits = hidden @ weights["w2"].T + weights["b2"]  # (N, C)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    logits_error = (softmax - np.eye(CLASSES)[y]) / SAMPLES  # (N, C), dL/dlogits
    hidden_error = logits_error @ weights["w2"] * hidden * (1 - hidden)  # (N, H), before the sigmoid
    return {
        "w1": hidden_error.T @ x,
        "b1": hidden_error.sum(0),
        "w2": logits_error.T @ hidden,
        "b2": logits_error.sum(0),
    }


def by_differences(x, y, weights, width=1e-6):
    def at(changed):
        tensors = {name: torch.tensor(value) for name, value in changed.items()}
        return float(loss(torch.tensor(x), torch.tensor(y), **tensors))

    slopes = {name: np.empty_like(value) for name, value in weights.items()}
    for name, value in weights.items():
        for index in np.ndindex(value.shape):
            nudge = np.zeros_like(value)
            nudge[index] = width
            up, down = at(weights | {name: value + nudge}), at(weights | {name: value - nudge})
            slopes[name][index] = (up - down) / (2 * width)
    return slopes


@pytest.mark.parametrize(("other", "tolerance"), [(by_the_chain_rule, 1e-14), (by_differences, 1e-9)])
def test_autograd_gives_the_gradient_of_backpropagation(other, tolerance):
    gradient, expected = by_autograd(*two_layers()), other(*two_layers())
    assert gradient.keys() == expected.keys()
    for name, value in gradient.items():
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance, err_msg=name)


def test_gradcheck_agrees_with_all_three():
    x, y, weights = two_layers()
    leaves = [torch.tensor(value, requires_grad=True) for value in weights.values()]
    fixed = (torch.tensor(x), torch.tensor(y))
    assert torch.autograd.gradcheck(lambda *w: loss(*fixed, *w), leaves, atol=1e-8)


def tiny(stem):
    """A ResNet in float64 that trains, but for batch norms that use the statistics they have."""
    torch.manual_seed(0)
    resnet = ResNet(18, channels=3, classes=CLASSES, width=0.125, stem=stem)
    model = nn.Sequential(Normalize([0.5] * 3, [0.25] * 3), resnet).double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def mixed_batch():
    torch.manual_seed(1)
    return {
        "image": torch.randint(256, (SAMPLES, 3, 28, 28), dtype=torch.uint8),
        "label": torch.arange(SAMPLES) % CLASSES,
        "label_mixed": torch.arange(SAMPLES).flip(0) % CLASSES,
        "mix": torch.rand(SAMPLES, dtype=torch.float64),
    }


@torch.no_grad()
def slope(model, batch, direction, width):
    """Central difference of the step's loss along a direction through all the weights."""
    start = [weights.clone() for weights in model.parameters()]
    losses = []
    for change in (width, -width):
        for weights, at, towards in zip(model.parameters(), start, direction, strict=True):
            weights.copy_(at + change * towards)
        losses.append(step(model, batch, PARAMS).loss)
    for weights, at in zip(model.parameters(), start, strict=True):
        weights.copy_(at)
    return (losses[0] - losses[1]) / (2 * width)


@pytest.mark.parametrize("stem", ["small", "imagenet"])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_steps_gradient_is_the_slope_of_its_loss_in_any_direction(stem, mixed):
    model, batch = tiny(stem), mixed_batch()
    if not mixed:
        batch = {name: batch[name] for name in ("image", "label")}
    output = step(model, batch, PARAMS)
    output.loss.backward()
    for _ in range(5):
        direction = [torch.randn_like(weights) for weights in model.parameters()]
        predicted = sum((w.grad * d).sum() for w, d in zip(model.parameters(), direction, strict=True))
        assert abs(predicted) > 1e-2
        assert_close(slope(model, batch, direction, 1e-7), predicted, rtol=1e-5, atol=1e-6)


def test_every_weight_of_the_network_gets_a_gradient():
    model = tiny("small")
    step(model, mixed_batch(), PARAMS).loss.backward()
    idle = [name for name, weights in model.named_parameters() if weights.grad.abs().max() == 0]
    assert idle == []
