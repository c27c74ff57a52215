"""Boxes of a batch of images as tensors: targets of a detector, their losses, and what it detects.

A map has one cell for every `stride` pixels; the centre of the cell (row, column) is at
((row + 0.5) * stride, (column + 0.5) * stride).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SHARE = 0.54
"""Size of a Gaussian as a share of its box (TTFNet, Liu et al. 2020, arXiv:1909.00700, section 3.2): 3 standard
deviations are this share of half the box."""
LEAST = 0.1
"""Least value of a Gaussian at cells that learn the sides of the box."""
POSITIVE, NEGATIVE = 2, 4
"""Exponents of the focal loss, alpha and beta of CenterNet (arXiv:1904.07850, equation 1)."""


class Targets(NamedTuple):
    """What a detector learns from a batch of boxes, at each cell of a map."""

    heat: Tensor  # (B, classes, H, W): 1 at centres, falling to 0 around them
    boxes: Tensor  # (B, 4, H, W): sides of the box whose cell this is, in pixels
    label: Tensor  # (B, H, W): class of that box
    weight: Tensor  # (B, H, W): weight of these sides and this class, whose sum for each box is 1
    valid: Tensor  # (B, H, W): bool, false in crowd regions, whose objects are not annotated
    number: Tensor  # scalar: number of boxes


def targets(boxes: Tensor, length: Tensor, classes: int, shape: tuple[int, int], stride: int) -> Targets:
    """Spread each box over the cells around its centre, as a Gaussian as wide and high as the box (TTFNet).

    Where boxes overlap, a cell belongs to the smallest.

    Args:
        boxes: (B, M, 6): left, top, right, bottom, label and 1 for a crowd region; padded.
        length: Number of boxes of each image, int64 (B,).
        classes: Number of classes.
        shape: Rows and columns of the map.
        stride: Pixels between two cells.
    """
    boxes = F.pad(boxes.float(), (0, 0, 0, 1))  # at least one row, so that maxima exist
    sides, label, crowd = boxes[..., :4], boxes[..., 4].long(), boxes[..., 5] > 0
    there = torch.arange(boxes.shape[1], device=boxes.device) < length[:, None]  # (B, M)
    own = there & (boxes[..., 5] == 0)
    rows, columns = ((torch.arange(count, device=boxes.device) + 0.5) * stride for count in shape)
    across = _gaussian(sides[..., 0], sides[..., 2], columns, stride)  # (B, M, W)
    down = _gaussian(sides[..., 1], sides[..., 3], rows, stride)  # (B, M, H)
    value = down[..., :, None] * across[..., None, :] * own[..., None, None]  # (B, M, H, W)
    heat = value.new_zeros(len(boxes), classes, *shape)
    heat = heat.scatter_reduce(1, label[..., None, None].expand_as(value), value, "amax")
    area = (sides[..., 2] - sides[..., 0]) * (sides[..., 3] - sides[..., 1])
    claim = torch.where(value >= LEAST, 1 / area.clamp(min=1e-6)[..., None, None], 0)
    strongest, owner = claim.max(1)  # (B, H, W) each
    number = torch.arange(boxes.shape[1], device=boxes.device)[:, None, None]
    mine = (strongest > 0)[:, None] & (owner[:, None] == number)
    learnt = value * mine
    share = learnt / learnt.sum((2, 3), keepdim=True).clamp(min=1e-6)
    place = owner.flatten(1)
    at_cell = sides.gather(1, place[..., None].expand(-1, -1, 4)).transpose(1, 2).unflatten(2, shape)
    label_at_cell = label.gather(1, place).unflatten(1, shape)
    covered = _covers(sides[..., 0], sides[..., 2], columns)[..., None, :]
    covered = covered & _covers(sides[..., 1], sides[..., 3], rows)[..., :, None]
    valid = (covered & (there & crowd)[..., None, None]).any(1).logical_not()
    return Targets(heat, at_cell, label_at_cell, share.sum(1), valid | (heat.amax(1) >= LEAST), own.sum())


def _gaussian(low: Tensor, high: Tensor, at: Tensor, stride: int) -> Tensor:
    """Return the Gaussian of each box along one axis, (B, M, cells): exactly 1 at the cell with its centre."""
    centre = (((low + high) / 2 / stride).floor() + 0.5) * stride
    centre = centre.clamp(max=float(stride * len(at)) - stride / 2)[..., None]
    deviation = ((high - low) * SHARE / 6).clamp(min=stride / 6)[..., None]
    return torch.exp(-(((at - centre) / deviation) ** 2) / 2)


def _covers(low: Tensor, high: Tensor, at: Tensor) -> Tensor:
    return (at >= low[..., None]) & (at <= high[..., None])


def focal(logits: Tensor, heat: Tensor, valid: Tensor) -> Tensor:
    """Return the penalty-reduced focal loss of CenterNet (equation 1), summed over cells and classes.

    Args:
        logits: (B, classes, H, W).
        heat: The same shape, from `Targets`.
        valid: (B, H, W), bool: cells that count.
    """
    yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive = -((1 - yes.exp()) ** POSITIVE) * yes
    negative = -((1 - heat) ** NEGATIVE) * yes.exp() ** POSITIVE * no
    return (torch.where(heat == 1, positive, negative) * valid[:, None]).sum()


def cross_entropy(logits: Tensor, wanted: Targets) -> Tensor:
    """Return the cross-entropy of the class at the cells of each box, a weighted sum over cells.

    The focal loss, with one positive cell for each box, teaches which class it has more slowly than where it is.

    Args:
        logits: (B, classes, H, W).
        wanted: The targets.
    """
    return (F.cross_entropy(logits, wanted.label, reduction="none") * wanted.weight).sum()


def giou(sides: Tensor, wanted: Targets, stride: int) -> Tensor:
    """Return the loss 1 - GIoU (Rezatofighi et al. 2019, arXiv:1902.09630), a weighted sum over cells.

    Args:
        sides: Distances to left, top, right and bottom in pixels, (B, 4, H, W).
        wanted: The targets.
        stride: Pixels between two cells.
    """
    return ((1 - generalized_iou(corners(sides, stride), wanted.boxes)) * wanted.weight).sum()


def generalized_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the GIoU of boxes (B, 4, …) as (B, …).

    torchvision's function selects boxes by a mask, for whose size each update would wait for a GPU.
    """
    pairs = [(one[:, axis], other[:, axis], one[:, axis + 2], other[:, axis + 2]) for axis in (0, 1)]
    both, hull = one.new_ones(()), one.new_ones(())
    for low, other_low, high, other_high in pairs:
        both = both * (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0)
        hull = hull * (torch.maximum(high, other_high) - torch.minimum(low, other_low))
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (one, other)]
    union = areas[0] + areas[1] - both
    return both / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def corners(sides: Tensor, stride: int) -> Tensor:
    """Return boxes (B, 4, H, W), left, top, right and bottom in pixels, from the distances to their sides."""
    rows, columns = ((torch.arange(count, device=sides.device) + 0.5) * stride for count in sides.shape[2:])
    left, top, right, bottom = sides.unbind(1)
    x, y = columns, rows[:, None]
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)


class Detections(NamedTuple):
    """The most likely boxes of each image, by descending score."""

    boxes: Tensor  # (B, K, 4): left, top, right and bottom in pixels
    score: Tensor  # (B, K): 0..1
    label: Tensor  # (B, K): int64


def detect(logits: Tensor, sides: Tensor, size: Tensor, within: Tensor, most: int, stride: int) -> Detections:
    """Return the boxes at the cells whose score is the highest among their neighbours (CenterNet, section 3.1).

    Args:
        logits: (B, classes, H, W).
        sides: Distances to the sides in pixels, (B, 4, H, W).
        size: Height and width of each image, int64 (B, 2): boxes end at its edges.
        within: (B, H, W), bool: cells of the image and not of its padding.
        most: Number of boxes K; fewer cells give fewer boxes.
        stride: Pixels between two cells.
    """
    logits = logits.masked_fill(within.logical_not()[:, None], -torch.inf)
    lower = logits < F.max_pool2d(logits, 3, stride=1, padding=1)
    found = logits.masked_fill(lower, -torch.inf).flatten(1)
    top = found.topk(min(most, found.shape[1]))
    cells = logits.shape[2] * logits.shape[3]
    label, cell = top.indices // cells, top.indices % cells
    boxes = corners(sides, stride).flatten(2).transpose(1, 2)  # (B, cells, 4)
    boxes = boxes.gather(1, cell[..., None].expand(-1, -1, 4))
    limits = size.flip(1).repeat(1, 2)[:, None].to(boxes.dtype)  # width, height, width, height
    return Detections(torch.minimum(boxes.clamp(min=0), limits), top.values.sigmoid(), label)


def judged(found: Detections, boxes: Tensor, length: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return which detections are right and which wrong, (B, K) each: the metric of COCO at one IoU, on the device.

    A detection that matches only a crowd region is neither; `average_precision.matched` has the definition.

    Args:
        found: The detections, by descending score.
        boxes: (B, M, 6), as for `targets`.
        length: Number of boxes of each image, int64 (B,).
        threshold: Least IoU.
    """
    boxes = F.pad(boxes.float(), (0, 0, 0, 1))  # at least one row, so that maxima exist
    there = torch.arange(boxes.shape[1], device=boxes.device) < length[:, None]
    crowd = boxes[..., 5] > 0
    overlap = _overlap(found.boxes, boxes[..., :4], crowd)  # (B, K, M)
    alike = (found.label[..., None] == boxes[:, None, :, 4].long()) & there[:, None]
    overlap = torch.where(alike, overlap, 0.0)
    on_crowd = ((overlap >= threshold) & crowd[:, None]).any(2)
    free = torch.where(crowd, 0.0, 1.0)  # (B, M)
    right = []
    for each in overlap.unbind(1):
        best, place = (each * free).max(1, keepdim=True)
        hit = best >= threshold  # (B, 1)
        free = free.scatter(1, place, torch.where(hit, 0.0, free.gather(1, place)))
        right.append(hit)
    hits = torch.cat(right, 1) if right else on_crowd
    return hits, (hits | on_crowd).logical_not()


def _overlap(found: Tensor, true: Tensor, crowd: Tensor) -> Tensor:
    """Return the IoU of boxes (B, K, 4) and (B, M, 4), (B, K, M); of crowd regions, the share of the first box."""
    low = torch.maximum(found[:, :, None, :2], true[:, None, :, :2])
    high = torch.minimum(found[:, :, None, 2:], true[:, None, :, 2:])
    both = (high - low).clamp(min=0).prod(3)
    own, other = ((each[..., 2:] - each[..., :2]).prod(2) for each in (found, true))
    union = own[:, :, None] + torch.where(crowd[:, None], 0.0, other[:, None] - both)
    return both / union.clamp(min=1e-6)
