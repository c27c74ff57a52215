"""Conv-4: the small network of few-shot learning (Vinyals et al. 2016, arXiv:1606.04080, section 4.1)."""

from torch import Tensor, nn

BLOCKS = 4
"""Blocks, each of which halves height and width."""


class Conv4(nn.Sequential):
    """Four blocks of a 3x3 convolution, batch norm, ReLU and max-pooling; its output is an embedding.

    Args:
        channels: Number of image channels.
        width: Number of filters of each block.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(*(_block(width if block else channels, width) for block in range(BLOCKS)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to embeddings (N, `dimensions`)."""
        for block in self:
            x = block(x)
        return x.flatten(1)


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        # Pooling before the ReLU gives the same output, and leaves it a quarter of the values.
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )


def dimensions(size: int, width: int) -> int:
    """Return the number of dimensions of the embedding of an image with this side in pixels, at least 16."""
    return int(width * (size // 2**BLOCKS) ** 2)
