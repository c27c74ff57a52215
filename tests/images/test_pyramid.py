"""Encoders return maps at four or five strides, and start from weights as torchvision publishes them."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn

from components.errors import PedigreeError
from components.images.networks import published
from components.images.networks.normalize import Normalize
from components.images.networks.pyramid import STRIDES, encoder

NAMES = ("resnet18", "resnet34", "mobilenet_v2")


def model(name, channels=3, width=1.0, coarsest=32):
    network = encoder(name, channels, width, coarsest)
    return nn.Sequential(
        OrderedDict(normalize=Normalize([0.5] * channels, [0.25] * channels), network=network)
    ).eval()


def numbered(tensors):
    """Rename a MobileNetV2's weights as torchvision 0.3 did, where a block's layers have one number each."""
    renamed = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if "conv" in parts:
            at = parts.index("conv") + 1
            blocks = 2 if parts[1] == "1" else 3
            if parts[at + 1].isdigit():
                parts[at : at + 2] = [str(3 * int(parts[at]) + int(parts[at + 1]))]
            else:
                parts[at] = str(3 * (blocks - 1) + int(parts[at]) - (blocks - 1))
        renamed[".".join(parts)] = tensor
    return renamed


@pytest.fixture(scope="module")
def theirs():
    """torchvision's own networks, which name their modules as our encoders do."""
    torch.manual_seed(0)
    return {name: getattr(torchvision.models, name)(weights=None).eval() for name in NAMES}


@pytest.mark.parametrize("coarsest", [16, 32])
@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_has_a_map_for_each_stride_also_for_sides_that_no_stride_divides(name, coarsest):
    network = encoder(name, 1, 0.25, coarsest)
    maps = network(torch.rand(2, 1, 33, 70))
    assert [tuple(each.shape) for each in maps] == [
        (2, filters, -(-33 // stride), -(-70 // stride))
        for filters, stride in zip(network.filters, STRIDES, strict=False)
    ]
    assert STRIDES[len(maps) - 1] == coarsest
    sum(each.square().mean() for each in maps).backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None] == []  # DDP needs all


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_that_starts_from_torchvisions_weights_has_the_maps_of_torchvisions_network(
    tmp_path, theirs, name
):
    torch.save(theirs[name].state_dict(), tmp_path / "weights.pth")
    ours = model(name)
    assert published.start(ours, name, tmp_path / "weights.pth") == {key for key, _ in ours.named_parameters()}
    image = torch.randint(256, (1, 3, 64, 96), dtype=torch.uint8)
    normal = torchvision.transforms.functional.normalize(image / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        if name == "mobilenet_v2":
            last = theirs[name].features[:18](normal)
        else:
            last = nn.Sequential(*list(theirs[name].children())[:-2])(normal)
        torch.testing.assert_close(ours(image)[-1], last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_that_ends_at_stride_16_starts_from_torchvisions_weights_without_the_layers_beyond(
    tmp_path, theirs, name
):
    torch.save(theirs[name].state_dict(), tmp_path / "weights.pth")
    ours = model(name, coarsest=16)
    assert published.start(ours, name, tmp_path / "weights.pth") == {key for key, _ in ours.named_parameters()}
    image = torch.randint(256, (1, 3, 64, 96), dtype=torch.uint8)
    whole = model(name)
    published.start(whole, name, tmp_path / "weights.pth")
    with torch.inference_mode():
        for mine, same in zip(ours(image), whole(image)[:-1], strict=True):
            torch.testing.assert_close(mine, same)


def test_weights_of_a_mobilenet_with_the_names_of_an_older_torchvision_fit(tmp_path, theirs):
    weights = theirs["mobilenet_v2"].state_dict()
    headless = {key: each for key, each in weights.items() if not key.startswith("classifier.")}
    old = numbered(headless)
    assert "features.2.conv.7.weight" in old
    assert "features.1.conv.4.running_mean" in old
    torch.save(old, tmp_path / "old.pt")
    ours = model("mobilenet_v2")
    assert published.start(ours, "mobilenet_v2", tmp_path / "old.pt") == {key for key, _ in ours.named_parameters()}
    for key, tensor in ours.network.state_dict().items():
        assert torch.equal(tensor, weights[key]), key


def test_weights_of_another_network_are_an_error_that_names_it(tmp_path, theirs):
    torch.save(theirs["resnet34"].state_dict(), tmp_path / "weights.pth")
    with pytest.raises(PedigreeError, match=r"does not fit resnet18.*, whose weights these seem to be"):
        published.start(model("resnet18"), "resnet18", tmp_path / "weights.pth")
