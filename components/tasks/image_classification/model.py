"""Networks for image classification: ResNet-18 and 34, and the small whitened network."""

from collections import OrderedDict

from torch import Tensor, nn

from components import weights
from components.contracts import Manifest, Sources
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.images.normalize import Normalize
from components.images.resnet import (
    ResNet,
    Stem,
    load_backbone,
)
from components.images.whitened import Whitened, whiten
from components.params import INIT
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.prepare import VisionFacts

SMALL = 64
"""Largest image side in pixels for which `stem: auto` selects the small stem."""


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
    parts = OrderedDict[str, nn.Module](normalize=Normalize(facts.mean, facts.std), network=_network(params, facts))
    return _Mirrored(parts) if chosen.mirror else nn.Sequential(parts)


def _network(params: VisionParams, facts: VisionFacts) -> nn.Module:
    chosen = params.train.model
    if chosen.depth == 8:
        return Whitened(facts.channels, len(facts.classes), chosen.width)
    auto: Stem = "small" if facts.size <= SMALL else "imagenet"
    stem = auto if chosen.stem == "auto" else chosen.stem
    return ResNet(chosen.depth, facts.channels, len(facts.classes), chosen.width, stem)


def initialise(model: nn.Module, split: Columns, params: VisionParams, sources: Sources) -> set[str]:
    """Set the initial weights of a network from `build_model`.

    With depth 8, the first layer is set to whiten patches of the training images. A torchvision checkpoint
    initialises the backbone, but not the head (`load_backbone`). Other weights, such as those of a registered
    version, initialise all tensors with the same name and shape.

    Returns:
        The names of the parameters that come from the weights.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    network = model.get_submodule("network")
    if isinstance(network, Whitened):
        whiten(network.whiten, split["image"], model.get_submodule("normalize"))
    if INIT not in sources:
        return set()
    file = sources[INIT]
    tensors = weights.read(file)
    if not isinstance(network, ResNet) or "layer1.0.conv1.weight" not in tensors:
        return weights.start_from(model, file)
    if network.stem != "imagenet":
        raise PedigreeError(f"{file}: torchvision's weights do not fit the small stem: set stem: imagenet")
    backbone = load_backbone(network, file, tensors)
    return weights.parameters_among(model, {f"network.{name}": tensor for name, tensor in backbone.items()})
