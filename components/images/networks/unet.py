"""A U-Net (Ronneberger et al. 2015, arXiv:1505.04597): an encoder, and a decoder that restores its resolution."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.images.networks.pyramid import Coarsest, Encoder, encoder
from components.images.networks.resnet import BasicBlock


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


def _blocks(filters: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(BasicBlock(filters, filters, 1) for _ in range(count)))


def _convolution(filters: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    """Maps images to logits; from those at half resolution, `labels_at` computes the class of each pixel.

    Skipped maps are added, as in LinkNet (Chaurasia and Culurciello 2017, arXiv:1707.03718). Each step of the
    decoder has a head of its own, so that coarse maps learn classes directly (deep supervision; Lee et al. 2015,
    arXiv:1409.5185).

    Args:
        name: The encoder.
        width: Multiplier of its filters.
        filters: Filters of the decoder at stride 4. At stride 2 it has half, and at strides 8 and 16 twice as many:
            there, where classes are told apart, a convolution costs little.
        classes: Number of classes.
        normalize: What normalises an image (N, 3, H, W) on the scale 0..255.
        coarsest: Stride of the encoder's last map.
    """

    def __init__(
        self, name: Encoder, width: float, filters: int, classes: int, normalize: nn.Module, coarsest: Coarsest = 32
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = encoder(name, 3, width, coarsest)
        *skipped, deepest = self.network.filters
        deep = [2 * filters] * (len(skipped) - 2)
        widths = (*deep, filters, filters // 2)
        mixes = (*(_blocks(each, 2) for each in deep), _blocks(filters, 1), _convolution(filters // 2))
        self.decoder = nn.ModuleList(
            _Step(channels, skip, width, mix)
            for channels, skip, width, mix in zip(
                (deepest, *widths[:-1]), reversed(skipped), widths, mixes, strict=True
            )
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images (N, 3, H, W) to logits (N, classes, H / stride, W / stride), rounded up, float32.

        Returns:
            The logits at the strides 2, 4, 8 and, of an encoder with maps at stride 32, 16.
        """
        *skipped, x = self.network(self.normalize(image))
        found: list[Tensor] = []
        for step, skip, head in zip(self.decoder, reversed(skipped), self.heads, strict=True):
            x = step(x, skip)
            found.insert(0, head(x).float())
        return found


def labels_at(logits: Tensor, height: int, width: int) -> Tensor:
    """Return the class of the greatest logit at each pixel of the image; of equal ones, the first.

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
