"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), torchvision's own module."""

from typing import cast

from torch import nn


def mobilenet_v2(channels: int, classes: int, width: float = 1) -> nn.Module:
    """Return a randomly initialised MobileNetV2 that maps images (N, channels, H, W) to logits (N, classes).

    Args:
        channels: Number of image channels, 1 or 3.
        classes: Number of outputs of the head `classifier`.
        width: Multiplier of the numbers of filters; the products are rounded to multiples of 8.
    """
    from torchvision.models import MobileNetV2  # type: ignore[import-untyped]  # importing it takes a second

    network = MobileNetV2(num_classes=classes, width_mult=width)
    if channels != 3:
        rgb = network.features[0][0]
        first = nn.Conv2d(channels, rgb.out_channels, rgb.kernel_size, rgb.stride, rgb.padding, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out")
        network.features[0][0] = first
    return cast(nn.Module, network)
