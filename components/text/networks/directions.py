"""A recurrent layer in both directions of padded sequences (Schuster and Paliwal 1997, doi 10.1109/78.650093)."""

import torch
from torch import Tensor, nn

from components import recurrent


class BothDirections(nn.Module):
    """One recurrent layer in each direction, whose outputs stand side by side.

    Args:
        cell: The layer.
        inputs: Features of a position.
        size: D, features of both outputs together, an even number.
    """

    def __init__(self, cell: type[nn.GRU | nn.LSTM], inputs: int, size: int) -> None:
        super().__init__()
        self.forwards = cell(inputs, size // 2, batch_first=True)
        self.backwards = cell(inputs, size // 2, batch_first=True)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        """Map x (B, S, inputs) to (B, S, D), given the number of positions before the padding, int64 (B,)."""
        back = _reversed(x, length)
        ahead, _ = recurrent.apply(self.forwards, x)
        behind, _ = recurrent.apply(self.backwards, back)
        return torch.cat([ahead, _reversed(behind, length)], 2)


def _reversed(x: Tensor, length: Tensor) -> Tensor:
    """Reverse the positions of x (B, S, D) that are no padding.

    torch's packed sequences do the same, but need the lengths on the CPU, for which an update would wait for a GPU.
    """
    positions = torch.arange(x.shape[1], device=x.device)
    index = torch.where(positions < length[:, None], length[:, None] - 1 - positions, positions)  # (B, S)
    return x.gather(1, index[:, :, None].expand_as(x))
