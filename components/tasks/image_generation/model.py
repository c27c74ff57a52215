"""The network: a small U-Net that predicts the velocity of a rectified flow."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Manifest
from components.images.labels.labelled import Facts
from components.tasks.image_generation.params import FlowParams

GROUPS = 8
"""Groups of channels that are normalised together."""
HEADS = 4
"""Heads of the attention."""
NO_CLASS = -1
"""The label of an image whose class the network does not get."""
FREQUENCIES = 32
"""Sines, and as many cosines, that represent a time."""


class Norm(nn.GroupNorm):
    """Group normalisation in float32, also under autocast: in bf16 it takes three times as long on a CPU."""

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to float32 of the same shape."""
        return super().forward(x.float())


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut, scaled and shifted by the condition.

    The residual block of Dhariwal and Nichol 2021 (arXiv:2105.05233, section 3: adaptive group normalisation). It
    begins as the identity.
    """

    def __init__(self, channels: int, filters: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = Norm(channels)
        self.conv1 = nn.Conv2d(channels, filters, 3, padding=1)
        self.modulate = nn.Linear(condition, 2 * filters)
        self.norm2 = Norm(filters)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zero(nn.Conv2d(filters, filters, 3, padding=1))
        self.shortcut = nn.Identity() if channels == filters else nn.Conv2d(channels, filters, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map (N, channels, H, W) and conditions (N, condition) to (N, filters, H, W)."""
        scale, shift = self.modulate(condition)[:, :, None, None].chunk(2, 1)
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = F.silu(self.norm2(hidden) * (1 + scale) + shift)
        return cast(Tensor, self.shortcut(x) + self.conv2(self.dropout(hidden)))


class Attention(nn.Module):
    """Self-attention between all positions, with a shortcut; it begins as the identity.

    As in section 3 of Dhariwal and Nichol 2021. Where 3x3 convolutions see few positions, it sees the whole image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        count, channels, height, width = x.shape
        heads = self.qkv(self.norm(x)).view(count, 3, HEADS, channels // HEADS, height * width)
        query, key, value = heads.unbind(1)  # (N, heads, D, positions)
        # Not scaled_dot_product_attention, whose gradient on a GPU depends on the order in which threads finish.
        scores = key.transpose(2, 3) @ query / math.sqrt(channels // HEADS)  # (N, heads, keys, queries)
        share = scores.softmax(2)
        return cast(Tensor, x + self.out((value @ share).view(count, channels, height, width)))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None, "created with one"
    nn.init.zeros_(layer.bias)
    return layer


class Flow(nn.Module):
    """A U-Net (Ronneberger et al. 2015, arXiv:1505.04597) on squares of pixels, conditioned on time and class.

    Args:
        channels: Number of image channels, 1 or 3.
        classes: Number of classes.
        patch: Side in pixels of the squares of which each is one position of the network.
        width: Filters at full resolution; a multiple of `GROUPS`.
        levels: Number of resolutions.
        blocks: Residual blocks at each resolution, on the way down and on the way up, with attention between them.
        dropout: Dropout inside residual blocks.
    """

    def __init__(
        self, channels: int, classes: int, patch: int, width: int, levels: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.patch, self.classes, condition = patch, classes, 4 * width
        filters = [width * 2**level for level in range(levels)]
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.label = nn.Linear(classes + 1, condition, bias=False)
        self.first = nn.Conv2d(channels * patch**2, width, 3, padding=1)
        self.attention = Attention(filters[-1])
        self.middle = nn.ModuleList(Block(filters[-1], filters[-1], condition, dropout) for _ in range(blocks))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.reduce, self.enlarge = nn.ModuleList(), nn.ModuleList()
        for level, size in enumerate(filters):
            self.down.append(nn.ModuleList(Block(size, size, condition, dropout) for _ in range(blocks)))
            if level + 1 < levels:
                self.reduce.append(nn.Conv2d(size, 2 * size, 3, stride=2, padding=1))
                self.enlarge.append(nn.Conv2d(2 * size, size, 3, padding=1))
                joined = [2 * size, *[size] * (blocks - 1)]
                self.up.append(nn.ModuleList(Block(each, size, condition, dropout) for each in joined))
        self.norm = Norm(width)
        self.last = _zero(nn.Conv2d(width, channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """Predict the velocity at which noise becomes images.

        Args:
            x: (N, C, H, W), between noise and images on the scale -1..1.
            time: (N,), 0 for noise and 1 for images.
            label: int64 (N,), where `NO_CLASS` stands for none; or float (N, classes + 1), weights of the classes
                and of none.

        Returns:
            (N, C, H, W).
        """
        height, width = x.shape[2:]
        step = self.patch * 2 ** len(self.reduce)
        padded = F.pad(x, (0, -width % step, 0, -height % step))
        mixture = label if label.ndim == 2 else weights(label, self.classes)
        condition = F.silu(self.time(_waves(time)) + self.label(mixture))
        hidden = self.first(F.pixel_unshuffle(padded, self.patch))
        passed: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            for block in cast(nn.ModuleList, blocks):
                hidden = block(hidden, condition)
            if level < len(self.reduce):
                passed.append(hidden)
                hidden = self.reduce[level](hidden)
        hidden = self.attention(hidden)
        for block in self.middle:
            hidden = block(hidden, condition)
        for level in reversed(range(len(self.up))):
            hidden = F.interpolate(self.enlarge[level](hidden), scale_factor=2.0, mode="nearest")
            hidden = torch.cat((hidden, passed[level]), 1)
            for block in cast(nn.ModuleList, self.up[level]):
                hidden = block(hidden, condition)
        velocity = F.pixel_shuffle(self.last(F.silu(self.norm(hidden))), self.patch)
        return velocity[:, :, :height, :width]


def weights(label: Tensor, classes: int) -> Tensor:
    """Return the weights, float (N, classes + 1), that stand for labels, int64 (N,)."""
    return (torch.arange(classes + 1, device=label.device) == (label % (classes + 1))[:, None]).float()


def _waves(time: Tensor) -> Tensor:
    """Return sines and cosines of times (N,), (N, 2 FREQUENCIES), whose periods are 2 pi / 1000 to 20 pi."""
    spread = torch.arange(FREQUENCIES, device=time.device) / FREQUENCIES
    angles = 1000 * time[:, None] * torch.exp(-math.log(10_000) * spread)
    return torch.cat((angles.sin(), angles.cos()), 1)


def build_model(params: FlowParams, manifest: Manifest) -> Flow:
    """Build a randomly initialised network."""
    facts, chosen = Facts.model_validate(manifest.facts), params.train.model
    return Flow(
        facts.channels,
        len(facts.classes),
        chosen.patch,
        chosen.width,
        chosen.levels,
        chosen.blocks,
        chosen.dropout,
    )
