"""The small network of the CIFAR-10 speed records (Jordan 2024, arXiv:2404.00498)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 2
"""Side of the patches that the first layer takes apart, in pixels."""
FILTERS = (64, 256, 256)
"""Of the three groups of two convolutions."""
PIXELS = 5000 * 32 * 32
"""Of training images, about so many, that the first layer's filters are taken from."""
AT_A_TIME = 32 * 32 * 32
"""Of these pixels, or one image."""
EPSILON = 5e-4
"""Added to the variances that whitening divides by."""
SHIFT = 8.0
"""What a batch norm's bias is multiplied by: with SGD its rate is then the square of it, 64 times the others'."""
LOGITS = 1 / 9
"""What the last layer's answers are multiplied by."""
KEPT = 0.6
"""Share of the old statistics that a batch norm keeps at an update; there are few updates."""


class _Norm(nn.BatchNorm2d):
    """Batch normalisation without a scale, whose bias learns quickly."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=1 - KEPT, affine=False)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        return super().forward(x) + (SHIFT * self.shift).to(x.dtype)[:, None, None]


class _Group(nn.Module):
    """Two 3x3 convolutions, the first one's answer halved in height and width by max-pooling."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        self.norm1 = _Norm(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = _Norm(filters)
        for conv in (self.conv1, self.conv2):
            # The first filters hand their channel on as it is.
            nn.init.dirac_(conv.weight.data[: conv.in_channels])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, filters, H / 2, W / 2), rounded down."""
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Whitened(nn.Module):
    """A whitening layer whose filters are not trained, three groups of convolutions, a linear layer: 8 layers.

    Args:
        channels: of the images, 1 or 3.
        classes: outputs of the head `fc`.
        width: multiplier of the filters 64, 256, 256; the products are rounded to multiples of 8.
    """

    def __init__(self, channels: int, classes: int, width: float = 1) -> None:
        super().__init__()
        patch = channels * PATCH**2
        filters = [max(8, 8 * round(width * n / 8)) for n in FILTERS]
        self.whiten = nn.Conv2d(channels, 2 * patch, PATCH)
        self.whiten.weight.requires_grad_(False)
        inputs = [2 * patch, *filters[:-1]]
        self.groups = nn.Sequential(*(_Group(i, f) for i, f in zip(inputs, filters, strict=True)))
        self.fc = nn.Linear(filters[-1], classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, channels, H, W), H and W from 28 up, to logits (N, classes)."""
        # In bf16 the small differences between neighbouring pixels, which whitening enlarges, would be lost.
        with torch.autocast(x.device.type, enabled=False):
            x = self.whiten(x)
        x = self.groups(F.gelu(x))  # (N, filters, (H - 1) / 8, (W - 1) / 8), rounded down
        logits: Tensor = LOGITS * self.fc(F.adaptive_max_pool2d(x, 1).flatten(1))
        return logits


@torch.no_grad()
def whiten(layer: nn.Conv2d, images: Tensor, normalize: nn.Module) -> None:
    """Let the layer's first half of filters make the patches of images white, and the other half the opposite.

    Args:
        layer: With 2 C `PATCH`^2 filters.
        images: (N, C, H, W), of which some are looked at, spread evenly, as classes lie one after the other.
        normalize: Brings them to the scale on which the layer is given them.
    """
    size = layer.in_channels * PATCH**2
    products, count = torch.zeros(size, size, dtype=torch.float64), 0
    pixels = images.shape[2] * images.shape[3]
    spread = images[:: math.ceil(len(images) * pixels / PIXELS)]
    for some in spread.split(max(1, AT_A_TIME // pixels)):
        patches = F.unfold(normalize(some.cpu()), PATCH)  # (N, C PATCH^2, (H - 1) (W - 1))
        patches = patches.transpose(1, 2).flatten(0, 1).double()
        products += patches.T @ patches
        count += len(patches)
    variances, axes = torch.linalg.eigh(products / count)
    filters = (axes / (variances + EPSILON).sqrt()).T.flip(0).float()  # the largest variance first
    filters = filters.view(size, layer.in_channels, PATCH, PATCH)
    layer.weight.copy_(torch.cat([filters, -filters]))
    assert layer.bias is not None
    layer.bias.zero_()
