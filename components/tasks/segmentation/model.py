"""The network for segmentation: a U-Net with a ResNet or MobileNetV2 as its encoder."""

import statistics

import torch
from torch import Tensor, nn

from components.contracts import Manifest, Sources
from components.datasets.splits import Columns
from components.images.networks import published
from components.images.networks.normalize import Normalize
from components.images.networks.unet import UNet
from components.params import INIT
from components.tasks.segmentation.params import SegmentationParams
from components.tasks.segmentation.prepare import SegmentationFacts

WEIGHTS = "class_weights"
"""The buffer with the weight of each class in the loss, (K,)."""


def build_model(params: SegmentationParams, manifest: Manifest) -> nn.Module:
    """Build a randomly initialised U-Net."""
    facts = SegmentationFacts.model_validate(manifest.facts)
    chosen = params.train.model
    normalize = Normalize(facts.mean, facts.std)
    model = UNet(chosen.network, chosen.width, chosen.decoder, len(facts.classes), normalize, chosen.stride)
    even = params.train.loss.class_weights == "none"
    weights = torch.ones(len(facts.classes)) if even else torch.tensor(median_frequency(facts.shares))
    model.register_buffer(WEIGHTS, weights, persistent=False)
    return model


def median_frequency(shares: list[float]) -> list[float]:
    """Return the weight of each class: the median of the shares, divided by its own.

    A share is that of a class in the pixels of the images that have it (Eigen and Fergus 2015, arXiv:1411.4734,
    section 6.3.2). A class that no training image has gets weight 1.
    """
    median = statistics.median([share for share in shares if share])
    return [median / share if share else 1.0 for share in shares]


def class_weights(model: nn.Module) -> Tensor:
    """Return the weights of the classes, also from a model that is wrapped by DDP or compiled."""
    return next(buffer for name, buffer in model.named_buffers() if name.endswith(WEIGHTS))


def initialise(model: nn.Module, split: Columns, params: SegmentationParams, sources: Sources) -> set[str]:
    """Load what `train.init.from` names; torchvision's weights initialise the encoder alone.

    Returns:
        The names of the parameters that come from the weights.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    if INIT not in sources:
        return set()
    return published.start(model, params.train.model.network, sources[INIT])
