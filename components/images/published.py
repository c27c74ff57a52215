"""Weights in the form in which torchvision publishes them, `resnet18-….pth` or `mobilenet_v2-….pth`."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from components.errors import PedigreeError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of ImageNet's pixels by channel, on the scale 0..1, with which these weights were trained."""


class _Names(NamedTuple):
    first: str
    """Name of the first convolution's filters, (filters, 3, kernel, kernel)."""
    head: str
    """Beginning of the names of the last layer, whose outputs are ImageNet's 1,000 classes."""


NAMES = {
    "resnet18": _Names("conv1.weight", "fc."),
    "resnet34": _Names("conv1.weight", "fc."),
    "mobilenet_v2": _Names("features.0.0.weight", "classifier."),
}
"""The networks that can start from such weights."""


def is_published(names: Collection[str]) -> bool:
    """Return whether tensors with these names are those of an image network in torchvision's form."""
    return "layer1.0.conv1.weight" in names or "features.0.0.weight" in names


def load_backbone(network: nn.Module, name: str, file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Load torchvision's weights into a network, except for the head.

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
    first, head = NAMES[name]
    own = network.state_dict()
    backbone = {key: tensor for key, tensor in tensors.items() if not key.startswith(head)}
    filters = backbone.get(first)
    if own[first].shape[1] == 1 and filters is not None and filters.ndim == 4:
        backbone[first] = filters.sum(1, keepdim=True)
    wanted = {key: tensor for key, tensor in own.items() if not key.startswith(head)}
    if misfits := _misfits(backbone, wanted):
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise PedigreeError(
            f"{file} does not fit {name}: {', '.join(misfits[:3])}{more}: use torchvision's weights of "
            f"{name}{_hint(tensors, name)}"
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
