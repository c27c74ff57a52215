"""The small network of the CIFAR-10 speed records (Jordan 2024, arXiv:2404.00498)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 2
"""Side in pixels of the patches that the first layer whitens."""
FILTERS = (64, 256, 256)
"""Filters of the three groups of two convolutions."""
PIXELS = 5000 * 32 * 32
"""Approximate number of training pixels from which the first layer's filters are computed."""
PIXELS_AT_ONCE = 32 * 32 * 32
"""Number of these pixels processed at once, but at least one image."""
EPSILON = 5e-4
"""Added to the variances that whitening divides by."""
SHIFT = 8.0
"""Factor of a batch norm's bias; with SGD the bias's effective learning rate is then 64 times as high."""
LOGITS = 1 / 9
"""Factor of the last layer's outputs."""
MEMORY = 0.6
"""Share of its old statistics that a batch norm keeps in an update; low, as there are few updates."""


class _Norm(nn.BatchNorm2d):
    """Batch normalisation without a scale, whose bias learns quickly."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=1 - MEMORY, affine=False)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        return super().forward(x) + (SHIFT * self.shift).to(x.dtype)[:, None, None]


class _Group(nn.Module):
    """Two 3x3 convolutions; max-pooling after the first halves height and width."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        self.norm1 = _Norm(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = _Norm(filters)
        for conv in (self.conv1, self.conv2):
            # The first filters pass their input channel on unchanged.
            nn.init.dirac_(conv.weight.data[: conv.in_channels])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, filters, H / 2, W / 2), rounded down."""
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Whitened(nn.Module):
    """A network of 8 layers: a fixed whitening layer, three groups of convolutions, and a linear layer.

    Args:
        channels: Number of image channels, 1 or 3.
        classes: Number of outputs of the head `fc`.
        width: Multiplier of the filters 64, 256, 256; the products are rounded to multiples of 8.
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
        # bf16 would lose the small differences between neighbouring pixels that whitening amplifies. TF32, in
        # which a GPU computes this layer in training, loses less of them than the conversion to bf16 that follows.
        with torch.autocast(x.device.type, enabled=False):
            x = self.whiten(x)
        x = self.groups(F.gelu(x))  # (N, filters, (H - 1) / 8, (W - 1) / 8), rounded down
        # On a GPU, the backward pass of adaptive_max_pool2d has no deterministic implementation.
        logits: Tensor = LOGITS * self.fc(F.max_pool2d(x, x.shape[-2:]).flatten(1))
        return logits


@torch.no_grad()
def whiten(layer: nn.Conv2d, images: Tensor, normalize: nn.Module) -> None:
    """Set half of a layer's filters to whiten the patches of images, and the other half to their negatives.

    Args:
        layer: A layer with 2 C `PATCH`^2 filters.
        images: (N, C, H, W), sorted by class; an evenly spread subset is used.
        normalize: The normalisation that precedes the layer.
    """
    size = layer.in_channels * PATCH**2
    products, count = torch.zeros(size, size, dtype=torch.float64), 0
    pixels = images.shape[2] * images.shape[3]
    spread = images[:: math.ceil(len(images) * pixels / PIXELS)]
    for some in spread.split(max(1, PIXELS_AT_ONCE // pixels)):
        patches = F.unfold(normalize(some.cpu()), PATCH)  # (N, C PATCH^2, (H - 1) (W - 1))
        patches = patches.transpose(1, 2).flatten(0, 1).double()
        products += patches.T @ patches
        count += len(patches)
    variances, axes = torch.linalg.eigh(products / count)
    filters = (axes / (variances + EPSILON).sqrt()).T.flip(0).float()  # by descending variance
    filters = filters.view(size, layer.in_channels, PATCH, PATCH)
    layer.weight.copy_(torch.cat([filters, -filters]))
    assert layer.bias is not None
    layer.bias.zero_()
