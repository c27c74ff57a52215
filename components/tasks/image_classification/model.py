"""Networks for image classification: ResNet-18 and 34, MobileNetV2, and the small whitened network."""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from components.classification.decision import Decision
from components.contracts import Manifest, Sources
from components.datasets.splits import Columns
from components.images.networks import members, published
from components.images.networks.members import Members
from components.images.networks.mobilenet import mobilenet_v2
from components.images.networks.normalize import Normalize
from components.images.networks.resnet import ResNet, Stem
from components.images.networks.whitened import Whitened, whiten
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

    The first layer of `whitened` is set to whiten patches of the training images; for given weights, see
    `published.start`.

    Returns:
        The names of the parameters that come from the weights.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    for network in members.networks(model.get_submodule("network")).values():
        if isinstance(network, Whitened):
            whiten(network.whiten, split["image"], model.get_submodule("normalize"))
    return published.start(model, params.train.model.network, sources[INIT]) if INIT in sources else set()
