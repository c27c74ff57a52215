"""Residual networks for images (He et al. 2015, arXiv:1512.03385), with torchvision's names of modules."""

from typing import Literal, cast

from torch import Tensor, nn

Stem = Literal["small", "imagenet"]


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Number of blocks in each of the four stages, by depth (table 1 of the paper)."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (figure 2 of the paper), a projection where needed (option B)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        # The projection is initialised first, as in torchvision, so that equal seeds give equal weights.
        downsample = _projection(channels, filters, stride) if stride > 1 or channels != filters else None
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, filters, H / stride, W / stride), rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return cast(Tensor, self.relu(x + shortcut))


def _projection(channels: int, filters: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))


def _stage(channels: int, filters: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(channels, filters, stride)
    return nn.Sequential(first, *(BasicBlock(filters, filters, 1) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """ResNet-18 or 34 with basic blocks; with the imagenet stem, torchvision's state dicts load unchanged.

    Args:
        depth: Number of layers, 18 or 34.
        channels: Number of image channels, 1 or 3.
        classes: Number of outputs of the head `fc`.
        width: Multiplier of the filters 64, 128, 256, 512; the products are rounded to multiples of 8.
        stem: small is a 3x3 convolution at full resolution, for images of about 32 pixels; imagenet is a 7x7
            convolution with stride 2, followed by max-pooling.
    """

    def __init__(self, depth: int, channels: int, classes: int, width: float = 1, stem: Stem = "small") -> None:
        super().__init__()
        self.stem = stem
        filters = [max(8, 8 * round(width * n / 8)) for n in (64, 128, 256, 512)]
        kernel, stride = (3, 1) if stem == "small" else (7, 2)
        self.conv1 = nn.Conv2d(channels, filters[0], kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(filters[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "small" else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(filters[0], filters[0], 1, BLOCKS[depth][0])
        self.layer2 = _stage(filters[0], filters[1], 2, BLOCKS[depth][1])
        self.layer3 = _stage(filters[1], filters[2], 2, BLOCKS[depth][2])
        self.layer4 = _stage(filters[2], filters[3], 2, BLOCKS[depth][3])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(filters[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, channels, H, W), H and W from 28 up, to logits (N, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, filters, H / 8 or H / 32, W likewise)
        return cast(Tensor, self.fc(self.avgpool(x).flatten(1)))
