"""Networks for image classification: ResNet-18 and 34, MobileNetV2, and the small whitened network."""

from collections import OrderedDict
from collections.abc import Collection
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from components import weights
from components.classification.decision import Decision
from components.contracts import Manifest, Sources
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.images import published
from components.images.members import Members
from components.images.mobilenet import mobilenet_v2
from components.images.normalize import Normalize
from components.images.resnet import ResNet, Stem
from components.images.whitened import Whitened, whiten
from components.params import INIT
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.prepare import VisionFacts

SMALL = 64
"""Largest image side in pixels for which `stem: auto` selects the small stem."""
DEPTH = {"resnet18": 18, "resnet34": 34}


class _Mirrored(nn.Sequential):
    """Outside training, returns the mean of the logits of an image and of its mirror image."""

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        logits = self._logits(image)
        return logits if self.training else (logits + self._logits(image.flip(3))) / 2

    def _logits(self, x: Tensor) -> Tensor:
        for part in self:
            x = part(x)
        return x


def build_model(params: VisionParams, manifest: Manifest) -> nn.Module:
    """Build a randomly initialised network that maps images on the scale 0..255 to logits."""
    facts = VisionFacts.model_validate(manifest.facts)
    chosen = params.train.model
    build = partial(_network, params, facts)
    network = build() if chosen.members == 1 else Members(build, chosen.members, facts.several)
    parts = OrderedDict[str, nn.Module](normalize=Normalize(facts.mean, facts.std), network=network)
    if facts.several or facts.positive:
        positive = None if facts.several else facts.classes.index(facts.positive)
        parts["decision"] = Decision(positive, len(facts.classes))
    return _Mirrored(parts) if chosen.mirror else nn.Sequential(parts)


def _network(params: VisionParams, facts: VisionFacts) -> nn.Module:
    chosen, classes = params.train.model, len(facts.classes)
    if chosen.network == "whitened":
        return Whitened(facts.channels, classes, chosen.width)
    if chosen.network == "mobilenet_v2":
        return mobilenet_v2(facts.channels, classes, chosen.width)
    auto: Stem = "small" if facts.size <= SMALL else "imagenet"
    stem = auto if chosen.stem == "auto" else chosen.stem
    return ResNet(DEPTH[chosen.network], facts.channels, classes, chosen.width, stem)


def initialise(model: nn.Module, split: Columns, params: VisionParams, sources: Sources) -> set[str]:
    """Set the initial weights of a network from `build_model`.

    The first layer of `whitened` is set to whiten patches of the training images. Weights that torchvision
    publishes initialise the backbone, but not the head (`published.load_backbone`), and images are then normalised
    with ImageNet's statistics. Other weights, such as those of a registered version, initialise all tensors with
    the same name and shape. Weights of one network initialise each member of an ensemble.

    Returns:
        The names of the parameters that come from the weights.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    networks = _networks(model)
    for network in networks.values():
        if isinstance(network, Whitened):
            whiten(network.whiten, split["image"], model.get_submodule("normalize"))
    if INIT not in sources:
        return set()
    file = sources[INIT]
    tensors = weights.read(file)
    if params.train.model.network in published.NAMES and published.is_published(tensors):
        return _start_from_published(model, params.train.model.network, file, tensors)
    return weights.start_with(model, _for_each(networks, tensors), file)


def _networks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the network, or the members of an ensemble, by the beginning of the names of its tensors."""
    network = model.get_submodule("network")
    if not isinstance(network, Members):
        return {"network.": network}
    return {f"network.members.{index}.": member for index, member in enumerate(network.members)}


def _for_each(networks: Collection[str], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors named as those of each network, if they are of a single one."""
    if any(name.startswith("network.members.") for name in tensors):
        return tensors
    return {
        name.replace("network.", network, 1) if name.startswith("network.") else name: tensor
        for network in networks
        for name, tensor in tensors.items()
    }


def _start_from_published(model: nn.Module, name: str, file: Path, tensors: dict[str, Tensor]) -> set[str]:
    normalize, loaded = model.get_submodule("normalize"), dict[str, Tensor]()
    for prefix, network in _networks(model).items():
        if isinstance(network, ResNet) and network.stem != "imagenet":
            raise PedigreeError(f"{file}: torchvision's weights do not fit the small stem: set stem: imagenet")
        own = published.load_backbone(network, name, file, tensors)
        loaded |= {f"{prefix}{key}": each for key, each in own.items()}
    assert isinstance(normalize, Normalize)
    for buffer, values in ((normalize.mean, published.MEAN), (normalize.std, published.STD)):
        channels = torch.tensor(values).view(-1, 1, 1)
        buffer.copy_(channels if len(buffer) == 3 else channels.mean())  # a grey image has the mean's
    weights.report(model, loaded, file)
    return weights.parameters_among(model, loaded)
