"""Normalisation of pixels for image networks."""

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Normalises images on the scale 0..255 by channel: (x / 255 - mean) / std.

    Args:
        mean: Mean of each channel on the scale 0..1.
        std: Standard deviation of each channel on the scale 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))  # (C, 1, 1)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 or float images (N, C, H, W) to floats of the same shape."""
        # Channels beside each other, as of images (N, H, W, 3) whose axes were permuted, are slow to normalise.
        image = image.to(self.mean.dtype, memory_format=torch.contiguous_format)
        # The quotient is a new tensor, so in-place operations save memory without changing the input.
        return (image / 255).sub_(self.mean).div_(self.std)
