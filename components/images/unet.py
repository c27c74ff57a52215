"""A U-Net (Ronneberger et al. 2015, arXiv:1505.04597): an encoder, and a decoder that restores its resolution."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.images.pyramid import Encoder, encoder
from components.images.resnet import BasicBlock


class _Step(nn.Module):
    """Doubles the resolution of a map, adds the encoder's map of that size, and mixes both.

    Adding, instead of a concatenation, leaves what the coarse maps say of the class a short way to the logits.

    Args:
        channels: Of the map.
        skipped: Of the encoder's map.
        filters: Of the result.
        mix: Maps the sum to the result.
    """

    def __init__(self, channels: int, skipped: int, filters: int, mix: nn.Module) -> None:
        super().__init__()
        self.coarse = _projection(channels, filters) if channels != filters else nn.Identity()
        self.skip = _projection(skipped, filters)
        self.mix = mix

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (N, channels, h, w) and (N, skipped, H, W), H = 2 h or 2 h - 1, to (N, filters, H, W)."""
        # The nearest neighbour, as the backward pass of bilinear interpolation is slow on a GPU where it repeats.
        larger = F.interpolate(self.coarse(x), size=skip.shape[2:], mode="nearest")
        return cast(Tensor, self.mix(larger + self.skip(skip)))


def _projection(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters))


class UNet(nn.Module):
    """Maps images to logits for each pixel; they are computed at half of the image's resolution.

    Skipped maps are added, as in LinkNet (Chaurasia and Culurciello 2017, arXiv:1707.03718).

    Args:
        name: The encoder.
        width: Multiplier of its filters.
        filters: Filters of the decoder; its last step, at half of the image's resolution, has half of them.
        classes: Number of classes.
        normalize: What normalises an image (N, 3, H, W) on the scale 0..255.
    """

    def __init__(self, name: Encoder, width: float, filters: int, classes: int, normalize: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = encoder(name, 3, width)
        first, *others, channels = self.network.filters
        steps = []
        for each in reversed(others):
            steps.append(_Step(channels, each, filters, BasicBlock(filters, filters, 1)))
            channels = filters
        last = filters // 2
        mix = nn.Sequential(
            nn.Conv2d(last, last, 3, padding=1, bias=False), nn.BatchNorm2d(last), nn.ReLU(inplace=True)
        )
        self.decoder = nn.ModuleList([*steps, _Step(channels, first, last, mix)])
        self.head = nn.Conv2d(last, classes, 1)

    def coarse(self, image: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes, H / 2, W / 2), rounded up, float32."""
        *skipped, x = self.network(self.normalize(image))
        for step, skip in zip(self.decoder, reversed(skipped), strict=True):
            x = step(x, skip)
        return cast(Tensor, self.head(x)).float()

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes, H, W), float32."""
        return F.interpolate(self.coarse(image), size=image.shape[2:], mode="bilinear")


def labels_at(logits: Tensor, height: int, width: int) -> Tensor:
    """Return the class of the greatest logit at each pixel of a larger image; of equal ones, the first.

    One class at a time, so that memory holds three maps of the larger size, not one for each class.

    Args:
        logits: (classes, h, w).
        height: Height of the result.
        width: Its width.

    Returns:
        (height, width), uint8.
    """
    best = _resized(logits[0], height, width)
    labels = torch.zeros(height, width, dtype=torch.uint8, device=logits.device)
    for index in range(1, len(logits)):
        other = _resized(logits[index], height, width)
        labels.masked_fill_(other > best, index)
        best = torch.maximum(best, other)
    return labels


def _resized(logits: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(logits[None, None], size=(height, width), mode="bilinear")[0, 0]
