"""An anchor-free detector: each cell of a map at stride 4 says whose centre it is, and how large that object is.

Zhou et al. 2019, "Objects as Points" (arXiv:1904.07850), with distances to the four sides in place of width, height
and offset, as in FCOS (Tian et al. 2019, arXiv:1904.01355).
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Manifest, Sources
from components.datasets.splits import Columns
from components.images.networks import published
from components.images.networks.normalize import Normalize
from components.images.networks.pyramid import MobileNetPyramid, ResNetPyramid, encoder
from components.params import INIT
from components.tasks.object_detection.params import DetectionParams
from components.tasks.object_detection.prepare import DetectionFacts

STRIDE = 4
"""Pixels between the centres of two cells."""
FINEST = 1
"""Position of the feature map at that stride among an encoder's."""
PRIOR = 0.1
"""Probability of an object in each cell before training (RetinaNet, arXiv:1708.02002, section 4.1; CenterNet)."""
SMALLEST, LARGEST = -4.0, 6.0
"""Limits of the logarithm of a distance in cells, e^6 of which are 1,600 pixels."""


class Head(nn.Module):
    """A top-down neck (Lin et al. 2017, arXiv:1612.03144), and the outputs for each cell of its finest map.

    Args:
        filters: Channels of the feature maps at the strides 4, 8, 16 and, if there is one, 32.
        width: Channels of the neck.
        classes: Number of classes.
    """

    def __init__(self, filters: tuple[int, ...], width: int, classes: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_projection(each, width) for each in filters)
        self.smooth = nn.ModuleList(_convolution(width, width) for _ in filters[:-1])
        self.heat = nn.Conv2d(width, classes, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        nn.init.normal_(self.heat.weight, std=0.01)
        nn.init.constant_(cast(Tensor, self.heat.bias), -math.log((1 - PRIOR) / PRIOR))
        nn.init.normal_(self.sides.weight, std=0.01)
        nn.init.constant_(cast(Tensor, self.sides.bias), 1.0)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits of the classes, (N, classes, H, W), and distances to the sides in pixels, (N, 4, H, W)."""
        x = self.lateral[-1](maps[-1])
        for lateral, smooth, finer in zip(
            reversed(self.lateral[:-1]), reversed(self.smooth), reversed(maps[:-1]), strict=True
        ):
            x = smooth(lateral(finer) + F.interpolate(x, size=finer.shape[2:], mode="nearest"))
        logarithm = self.sides(x).float().clamp(SMALLEST, LARGEST)
        return self.heat(x).float(), STRIDE * logarithm.exp()


def _projection(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters))


def _convolution(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)
    )


class Detector(nn.Module):
    """Normalisation, encoder and head; and the thresholds, which are saved with the weights."""

    threshold: Tensor
    """Least score of a box of each class that is answered and counted, float64 (classes,)."""

    def __init__(self, normalize: Normalize, network: ResNetPyramid | MobileNetPyramid, head: Head) -> None:
        super().__init__()
        self.normalize, self.network, self.head = normalize, network, head
        self.register_buffer("threshold", torch.full((head.heat.out_channels,), 0.5, dtype=torch.float64))

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Map padded images to what `Head` returns.

        Args:
            image: (N, 3, H, W) on the scale 0..255, padded at the right and bottom.
            size: Height and width of each image within, int64 (N, 2).
        """
        x = self.normalize(image)
        # What is normalised from a padding of zeros is not zero, which convolutions pad with.
        x = x * inside(size, x.shape[2], x.shape[3])[:, None]
        logits, sides = self.head(self.network(x)[FINEST:])
        return logits, sides


def inside(size: Tensor, height: int, width: int, stride: int = 1) -> Tensor:
    """Return which cells of a padded map begin within their image, bool (N, height, width).

    Args:
        size: Height and width of each image in pixels, int64 (N, 2).
        height: Rows of the map.
        width: Columns of the map.
        stride: Pixels between two cells.
    """
    rows, columns = (stride * torch.arange(length, device=size.device) for length in (height, width))
    return (rows < size[:, :1])[:, :, None] & (columns < size[:, 1:])[:, None, :]


def build_model(params: DetectionParams, manifest: Manifest) -> nn.Module:
    """Build a randomly initialised detector."""
    facts = DetectionFacts.model_validate(manifest.facts)
    chosen = params.train.model
    network = encoder(chosen.network, 3, chosen.width, chosen.stride)
    head = Head(network.filters[FINEST:], chosen.neck, len(facts.classes))
    return Detector(Normalize(facts.mean, facts.std), network, head)


def initialise(model: nn.Module, split: Columns, params: DetectionParams, sources: Sources) -> set[str]:
    """Load weights that the parameters name: torchvision's into the encoder, others by name and shape.

    Returns:
        The names of the parameters that come from the weights.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    return published.start(model, params.train.model.network, sources[INIT]) if INIT in sources else set()
