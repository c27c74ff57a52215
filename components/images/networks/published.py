"""Weights in the form in which torchvision publishes them, `resnet18-….pth` or `mobilenet_v2-….pth`."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from components import weights
from components.errors import PedigreeError
from components.images.networks.members import networks
from components.images.networks.normalize import Normalize
from components.images.networks.resnet import ResNet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of ImageNet's pixels by channel, on the scale 0..1, with which these weights were trained."""


class _Names(NamedTuple):
    first: str
    """Name of the first convolution's filters, (filters, 3, kernel, kernel)."""
    head: str
    """Beginning of the names of the last layer, whose outputs are ImageNet's 1,000 classes."""
    last: tuple[str, ...]
    """Beginnings of the names of the layers that an encoder may end before."""


NAMES = {
    "resnet18": _Names("conv1.weight", "fc.", ("layer4.",)),
    "resnet34": _Names("conv1.weight", "fc.", ("layer4.",)),
    "mobilenet_v2": _Names(
        "features.0.0.weight", "classifier.", tuple(f"features.{number}." for number in range(14, 19))
    ),
}
"""The networks that can start from such weights."""
_FLAT = re.compile(r"(features\.(\d+)\.conv\.)(\d)(\..+)")
"""A name in a block of MobileNetV2 as torchvision had it before version 0.4: the layers have one number each."""


def is_published(names: Collection[str]) -> bool:
    """Return whether tensors with these names are those of an image network in torchvision's form."""
    return "layer1.0.conv1.weight" in names or "features.0.0.weight" in names


def current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of a MobileNetV2 with torchvision's current names; all others as they are.

    Until version 0.3, convolution, batch norm and activation of a block were numbered through: 0, 1, 2, 3, 4, ….
    Each such triple is a module of its own now, except for the last convolution and batch norm.
    """
    if "features.2.conv.7.weight" not in tensors:  # now, a block's last module is number 3
        return dict(tensors)
    return {_current(name): tensor for name, tensor in tensors.items()}


def _current(name: str) -> str:
    found = _FLAT.fullmatch(name)
    if found is None:
        return name
    prefix, block, layer, rest = found[1], int(found[2]), int(found[3]), found[4]
    last = 3 if block == 1 else 6  # the first block does not expand its channels
    return (
        f"{prefix}{layer // 3}.{layer % 3}{rest}" if layer < last else f"{prefix}{layer - last + last // 3}{rest}"
    )


def start(model: nn.Module, name: str, file: Path) -> set[str]:
    """Load weights from a file or folder into a model with the submodules `normalize` and `network`.

    torchvision's weights initialise the backbone, and images are then normalised with ImageNet's statistics. Other
    weights, such as those of a registered version, initialise all tensors with the same name and shape. Weights of
    one network initialise each member of an ensemble.

    Args:
        model: The model; `normalize` is a `Normalize`, and `network` a classifier or encoder, or several `Members`.
        name: The network's name in `NAMES`, or another, which has no published weights.
        file: The weights.

    Returns:
        The names of the parameters that were loaded.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    tensors, each = weights.read(file), networks(model.get_submodule("network"))
    if name not in NAMES or not is_published(tensors):
        return weights.start_with(model, _for_each(each, tensors), file)
    loaded = dict[str, Tensor]()
    for prefix, network in each.items():
        if isinstance(network, ResNet) and network.stem != "imagenet":
            raise PedigreeError(f"{file}: torchvision's weights do not fit the small stem: set stem: imagenet")
        backbone = load_backbone(network, name, file, tensors)
        loaded |= {f"network.{prefix}{key}": tensor for key, tensor in backbone.items()}
    normalize = model.get_submodule("normalize")
    assert isinstance(normalize, Normalize)
    for buffer, values in ((normalize.mean, MEAN), (normalize.std, STD)):
        channels = torch.tensor(values).view(-1, 1, 1)
        buffer.copy_(channels if len(buffer) == 3 else channels.mean())  # a grey image has the mean's
    weights.report(model, loaded, file)
    return weights.parameters_among(model, loaded)


def _for_each(prefixes: Collection[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors named as those of each network, if they are of a single one."""
    if any(name.startswith("network.members.") for name in tensors):
        return dict(tensors)
    return {
        name.replace("network.", f"network.{prefix}", 1) if name.startswith("network.") else name: tensor
        for prefix in prefixes
        for name, tensor in tensors.items()
    }


def load_backbone(network: nn.Module, name: str, file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Load torchvision's weights into a network, except for the head and what an encoder ends before.

    For one-channel images the first filters are summed over their channels, so that a grey image has the same
    output as three equal channels in torchvision's network.

    Args:
        network: The network; a ResNet with the imagenet stem.
        name: Its name in `NAMES`.
        file: The weights' file, for error messages.
        tensors: The file's content.

    Returns:
        The loaded tensors by name.

    Raises:
        PedigreeError: a tensor is missing, unexpected or of another shape.
    """
    first, head, last = NAMES[name]
    own, named = network.state_dict(), current_names(tensors)
    beyond = tuple(layer for layer in last if not any(key.startswith(layer) for key in own))
    backbone = {key: tensor for key, tensor in named.items() if not key.startswith((head, *beyond))}
    filters = backbone.get(first)
    if own[first].shape[1] == 1 and filters is not None and filters.ndim == 4:
        backbone[first] = filters.sum(1, keepdim=True)
    wanted = {key: tensor for key, tensor in own.items() if not key.startswith(head)}
    if misfits := _misfits(backbone, wanted):
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise PedigreeError(
            f"{file} does not fit {name}: {', '.join(misfits[:3])}{more}: use torchvision's weights of "
            f"{name}{_hint(named, name)}"
        )
    network.load_state_dict(backbone, strict=False)
    return backbone


def _misfits(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return a description of each tensor that is unexpected, missing or of the wrong shape."""
    unexpected = [f"{name} is unexpected" for name in tensors if name not in wanted]
    # Older files lack the counters of batches, which are unused here.
    missing = [
        f"{name} is missing" for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")
    ]
    shapes = [
        f"{name} is {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    return unexpected + missing + shapes


def _hint(names: Collection[str], name: str) -> str:
    if "layer1.0.conv3.weight" in names:
        return "; these seem to be of a ResNet with 50 layers or more"
    seems = _recognised(names)
    return "" if seems in (None, name) else f", or set train.model.network: {seems}, whose weights these seem to be"


def _recognised(names: Collection[str]) -> str | None:
    if {"features.0.0.weight", "features.17.conv.0.0.weight"} <= set(names):
        return "mobilenet_v2"
    if "layer1.2.conv2.weight" in names:
        return "resnet34"
    return "resnet18" if "layer1.1.conv2.weight" in names else None
