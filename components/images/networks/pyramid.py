"""Encoders of images: networks that return feature maps at several strides, for detection and segmentation.

Modules have torchvision's names, so that published weights load into an encoder (`published.start`).
"""

from typing import Literal, cast

from torch import Tensor, nn

from components.images.networks.mobilenet import mobilenet_v2
from components.images.networks.resnet import ResNet

Encoder = Literal["resnet18", "resnet34", "mobilenet_v2"]

STRIDES = (2, 4, 8, 16, 32)
"""Strides of an encoder's feature maps."""
Coarsest = Literal[16, 32]
"""Stride of the last of them."""
_DEPTHS = {"resnet18": 18, "resnet34": 34}
_TAPS = (1, 3, 6, 13, 17)
"""The last blocks of MobileNetV2 at each of the strides (table 2 of arXiv:1801.04381)."""


class ResNetPyramid(ResNet):
    """ResNet-18 or 34 with the imagenet stem, without pooling and head, and up to a stride."""

    def __init__(self, depth: int, channels: int, width: float, coarsest: Coarsest) -> None:
        super().__init__(depth, channels, 1, width, "imagenet")
        del self.avgpool, self.fc
        if coarsest < STRIDES[-1]:
            del self.layer4
        filters = [cast(nn.BatchNorm2d, stage[0].bn1).num_features for stage in self._stages()]
        self.filters = (self.bn1.num_features, *filters)
        """Channels of the feature maps, one number per stride."""

    def _stages(self) -> list[nn.Sequential]:
        return [cast(nn.Sequential, stage) for name, stage in self.named_children() if name.startswith("layer")]

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]  # there is no head
        """Map images (N, channels, H, W) to maps (N, filters, H / stride, W / stride), rounded up, finest first."""
        x = self.relu(self.bn1(self.conv1(x)))
        maps = [x]
        x = self.maxpool(x)
        for stage in self._stages():
            x = stage(x)
            maps.append(x)
        return maps


class MobileNetPyramid(nn.Module):
    """MobileNetV2 without its last convolution and head, and up to a stride."""

    def __init__(self, channels: int, width: float, coarsest: Coarsest) -> None:
        super().__init__()
        taps = _TAPS[: STRIDES.index(coarsest) + 1]
        self.features = cast(nn.Sequential, mobilenet_v2(channels, 1, width).features)[: taps[-1] + 1]
        self.filters = tuple(_filters(self.features[tap]) for tap in taps)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images (N, channels, H, W) to maps (N, filters, H / stride, W / stride), rounded up, finest first."""
        maps = []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in _TAPS:
                maps.append(x)
        return maps


def _filters(block: nn.Module) -> int:
    return [each for each in block.modules() if isinstance(each, nn.BatchNorm2d)][-1].num_features


def encoder(
    name: Encoder, channels: int, width: float, coarsest: Coarsest = 32
) -> ResNetPyramid | MobileNetPyramid:
    """Return a randomly initialised encoder.

    Args:
        name: The network.
        channels: Number of image channels, 1 or 3.
        width: Multiplier of the numbers of filters, 64 to 512 of a ResNet and 16 to 320 of MobileNetV2; published
            weights need 1.
        coarsest: Stride of the last map. Without that at stride 32, a ResNet has a quarter of the weights.
    """
    if name == "mobilenet_v2":
        return MobileNetPyramid(channels, width, coarsest)
    return ResNetPyramid(_DEPTHS[name], channels, width, coarsest)
