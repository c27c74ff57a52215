"""Random augmentation of batches of images together with their boxes, on the batch's device."""

import torch
import torch.nn.functional as F
from torch import Tensor

VISIBLE = 0.25
"""Least share of a box's area that must stay inside the image for it to stay a box."""


def turn(image: Tensor, boxes: Tensor, size: Tensor, quarters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Turn a batch by a multiple of 90 degrees, anticlockwise.

    Args:
        image: (B, C, H, W), padded at the right and bottom.
        boxes: (B, M, 6), the first four columns being left, top, right and bottom in pixels.
        size: Height and width of each image within, int64 (B, 2).
        quarters: Number of turns by 90 degrees.

    Returns:
        Images, boxes and sizes; the padding moves with its image, of which the size is then that of the whole.
    """
    for _ in range(quarters % 4):
        left, top, right, bottom, *rest = boxes.unbind(2)
        width = image.shape[3]
        image = image.transpose(2, 3).flip(2)
        boxes = torch.stack([top, width - right, bottom, width - left, *rest], 2)
    return image, boxes, whole(image) if quarters % 4 else size


def whole(image: Tensor) -> Tensor:
    """Return the height and width of a batch of images (B, C, H, W) as sizes, int64 (B, 2)."""
    # Not torch.tensor, whose copy to a GPU would wait for it.
    sides = [torch.full((len(image),), side, device=image.device) for side in image.shape[2:]]
    return torch.stack(sides, 1)


def scale_and_flip(
    image: Tensor, boxes: Tensor, length: Tensor, factor: float, flip: float, flip_vertical: float
) -> tuple[Tensor, Tensor]:
    """Enlarge or reduce each image by up to `factor`, move it, and mirror a share of them; bilinear, zeros outside.

    An enlarged image is cropped at random, a reduced one is pasted at random. Boxes are clipped at the
    edges; those of which less than `VISIBLE` is left become crowd regions, which are neither learnt nor background.

    Args:
        image: (B, C, H, W).
        boxes: (B, M, 6), as in `turn`; the last column is 1 for a crowd region.
        length: Number of boxes of each image, int64 (B,).
        factor: Largest factor of the size; its logarithm is uniform.
        flip: Share of images to mirror.
        flip_vertical: Share of images to turn upside down.

    Returns:
        Images as float32, and boxes.
    """
    count, _, height, width = image.shape
    device = image.device
    zoom = factor ** (2 * torch.rand(count, device=device) - 1)  # (B,)
    shift = torch.rand(2, count, device=device)  # share of the room that there is, at the left and top
    mirror = [torch.rand(count, device=device) < share for share in (flip, flip_vertical)]
    sides = (width, height)
    offset = torch.stack(
        [shift[axis] * (1 - zoom) * side for axis, side in enumerate(sides)]
    )  # left and top, (2, B)
    # affine_grid maps coordinates of the output to those of the input, both -1..1 over the whole image.
    theta = image.new_zeros((count, 2, 3), dtype=torch.float32)
    for axis in (0, 1):
        sign = torch.where(mirror[axis], -1.0, 1.0)
        middle = (offset[axis] + zoom * sides[axis] / 2) * 2 / sides[axis] - 1
        theta[:, axis, axis] = sign / zoom
        theta[:, axis, 2] = -sign * middle / zoom
    grid = F.affine_grid(theta, [count, image.shape[1], height, width], align_corners=False)
    moved = F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved, _moved(boxes, length, zoom, offset, mirror, (width, height))


def _moved(
    boxes: Tensor, length: Tensor, zoom: Tensor, offset: Tensor, mirror: list[Tensor], shape: tuple[int, int]
) -> Tensor:
    own = torch.arange(boxes.shape[1], device=boxes.device) < length[:, None]
    crowd = boxes[..., 5]
    columns: list[Tensor] = [boxes[..., index] for index in range(4)]
    area = (columns[2] - columns[0]) * (columns[3] - columns[1])
    for axis, side in enumerate(shape):
        low, high = (columns[index] for index in (axis, axis + 2))
        flipped = mirror[axis][:, None]
        low, high = torch.where(flipped, side - high, low), torch.where(flipped, side - low, high)
        for index, edge in ((axis, low), (axis + 2, high)):
            columns[index] = (edge * zoom[:, None] + offset[axis][:, None]).clamp(0, side)
    left = (columns[2] - columns[0]) * (columns[3] - columns[1])
    gone = own & (left < VISIBLE * area * zoom[:, None] ** 2)
    return torch.stack([*columns, boxes[..., 4], torch.where(gone, 1.0, crowd)], 2)
