"""The small network of the CIFAR-10 speed records."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from components.datasets.splits import Columns
from components.images.networks.whitened import SHIFT, Whitened, whiten
from components.tasks.image_classification.model import build_model, initialise
from tests.tasks.image_classification.test_model import manifest, parameters


def photographs(count, channels=3, size=32):
    """Images whose neighbouring pixels are alike, as a photograph's are."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (200 * smooth + 50 * torch.rand(smooth.shape, generator=generator)).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_layer_makes_the_patches_of_the_training_images_white(channels):
    split = Columns({"image": photographs(300, channels), "label": torch.arange(300)})
    params = parameters(network="whitened", width=0.125)
    network = build_model(params, manifest(channels=channels))
    initialise(network, split, params, {})
    with torch.inference_mode():
        found = network.network.whiten(network.normalize(split["image"])).double()
    half = found.shape[1] // 2
    assert_close(found[:, half:], -found[:, :half])
    white = found[:, :half].transpose(0, 1).flatten(1)
    covariance = white @ white.T / white.shape[1]
    assert_close(covariance.diag(), torch.ones(half).double(), rtol=0.05, atol=0)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-3


def test_the_first_layers_filters_are_not_trained_and_all_else_is():
    network = build_model(parameters(network="whitened", width=0.125), manifest()).train()
    network(photographs(8)).square().sum().backward()
    without = {name for name, each in network.named_parameters() if each.grad is None}
    assert without == {"network.whiten.weight"}


def test_the_first_layer_answers_in_fp32_under_autocast():
    layer = Whitened(3, 10, 0.125)
    images = photographs(16).float() / 255
    whiten(layer.whiten, images, nn.Identity())
    seen = []
    layer.whiten.register_forward_hook(lambda module, given, answer: seen.append(answer))
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        layer.eval()(images)
    assert seen[0].dtype == torch.float32


def test_a_convolution_hands_its_first_channels_on_at_the_start():
    group = Whitened(3, 10, 1).groups[1]
    x = torch.randn(2, 64, 8, 8)
    with torch.inference_mode():
        assert_close(group.conv1(x)[:, :64], x)


def test_a_bias_learns_at_the_square_of_its_multiplier():
    network = Whitened(3, 4, 0.125).train()
    norm = network.groups[0].norm1
    optimizer = torch.optim.SGD([norm.shift], 0.01)
    before = (SHIFT * norm.shift).detach().clone()
    answers = []

    def keep(module, given, answer):
        answer.retain_grad()
        answers.append(answer)

    norm.register_forward_hook(keep)
    network(photographs(4).float() / 255).square().sum().backward()
    optimizer.step()
    moved = (SHIFT * norm.shift).detach() - before
    assert_close(moved, -0.01 * 64 * answers[0].grad.sum((0, 2, 3)))


@pytest.mark.parametrize("size", [28, 32, 65])
def test_images_of_any_size_get_an_answer_a_class(size):
    network = build_model(parameters(network="whitened", width=0.125), manifest(size=size, classes=7)).eval()
    assert network(photographs(2, size=size)).shape == (2, 7)


@pytest.mark.parametrize("kind", ["whitened", "resnet18", "mobilenet_v2"])
def test_a_mirrored_networks_answer_is_that_to_the_mirror_image(kind):
    params = parameters(network=kind, width=0.125, mirror="true")
    network = build_model(params, manifest())
    images = photographs(4)
    with torch.inference_mode():
        network.eval()
        assert_close(network(images), network(images.flip(3)))
        plain = build_model(parameters(network=kind, width=0.125), manifest()).eval()
        plain.load_state_dict(network.state_dict())
        assert_close(network(images), (plain(images) + plain(images.flip(3))) / 2)
        assert not torch.equal(plain(images), plain(images.flip(3)))


def test_a_mirrored_network_looks_once_at_an_image_in_training():
    network = build_model(parameters(network="resnet18", width=0.125, mirror="true"), manifest()).train()
    calls = []
    network.network.register_forward_hook(lambda *_: calls.append(1))
    network(photographs(4))
    assert calls == [1]
