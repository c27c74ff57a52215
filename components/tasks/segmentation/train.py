"""Augmentation, loss and predictions of a batch of images."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Batch, Better, StepOutput
from components.images.augment import recoloured, resampled
from components.images.networks.unet import labels_at
from components.tasks.segmentation.model import class_weights
from components.tasks.segmentation.params import SegmentationParams

BETTER: dict[str, Better] = {"loss": "less", "miou": "more", "pixel_accuracy": "more"}
IGNORED = -1
"""Index of pixels without a class."""


def augment(batch: Batch, params: SegmentationParams) -> Batch:
    """Cut a random square out of each image, mirrored, turned, resized and recoloured, and the same of its mask.

    Args:
        batch: `image`, uint8 (B, H, W, 3), and `mask`, uint8 (B, H, W), padded, with the own `image_size` of each,
            int64 (B, 2).
        params: `train.crop` and `train.augment`.

    Returns:
        `image`, float32 (B, crop, crop, 3), and `mask`, uint8 (B, crop, crop), which is 0 outside the image.
    """
    chosen = params.train.augment
    image, mask = resampled(
        batch["image"],
        batch["mask"],
        batch["image_size"],
        params.train.crop,
        chosen.scale,
        chosen.flip,
        chosen.turns,
    )
    return {"image": recoloured(image, chosen.colour) if chosen.colour else image, "mask": mask}


def step(model: nn.Module, batch: Batch, params: SegmentationParams) -> StepOutput:
    """Return the loss summed over labelled pixels, and their number; in validation also the confusion, (K, K).

    The loss compares the logits of each cell of a map with the classes of the cell's pixels: at the images' own
    resolution, it would take longer than the network. The map at stride 2 counts in full, and each coarser one half
    as much as the one before (Isensee et al. 2021, nnU-Net, doi 10.1038/s41592-020-01008-z). In validation, padding
    may change what is predicted at the border of images that are smaller than others of the batch; `predict`
    computes each image by itself.

    Args:
        model: A `UNet`.
        batch: From `augment`, or of the splits train and val.
        params: `train.loss`.
    """
    weights, mask = class_weights(model), batch["mask"]
    logits = model(_planes(batch["image"]))
    count = (mask > 0).sum()
    pixels, loss = in_cells(mask, len(weights)), torch.zeros((), device=mask.device)
    for number, each in enumerate(logits):
        loss = loss + 0.5**number * _loss(each, pixels, count, weights, params.train.loss.dice)
        pixels = F.avg_pool2d(pixels, 2, ceil_mode=True, divisor_override=1)
    if model.training:
        return StepOutput(loss, count)
    predicted = F.interpolate(logits[0], size=mask.shape[1:], mode="bilinear").argmax(1)
    return StepOutput(loss, count, {"confusion": confusion(_targets(mask), predicted, len(weights)).double()})


def _planes(image: Tensor) -> Tensor:
    """Return images (N, H, W, 3) as (N, 3, H, W)."""
    return image.permute(0, 3, 1, 2)


def _targets(mask: Tensor) -> Tensor:
    """Return the index of each pixel's class, int64, or IGNORED."""
    return mask.long() - 1


def in_cells(mask: Tensor, classes: int) -> Tensor:
    """Return how many pixels of each class are in each cell of a map at half resolution, float32 (B, K, h, w).

    Args:
        mask: (B, H, W), uint8: 1 + the index of a class, or 0.
        classes: K.
    """
    mask = F.pad(mask, (0, mask.shape[2] % 2, 0, mask.shape[1] % 2))
    values = torch.arange(1, classes + 1, dtype=torch.uint8, device=mask.device)[:, None, None]
    above, below = (
        (mask[:, None, row::2, ::2] == values).byte() + (mask[:, None, row::2, 1::2] == values).byte()
        for row in (0, 1)
    )
    return (above + below).float()


def _loss(logits: Tensor, pixels: Tensor, count: Tensor, weights: Tensor, dice: float) -> Tensor:
    """Return the sum of the loss over the `count` labelled pixels, of which Dice's is the same for each.

    Written out, as torch's loss of maps has no implementation that repeats its results on a GPU.
    """
    logarithm = logits.log_softmax(1)
    loss = -(logarithm * pixels * weights[:, None, None]).sum()
    return loss + dice * count * (1 - soft_dice(logarithm.exp(), pixels)) if dice else loss


def soft_dice(probability: Tensor, pixels: Tensor) -> Tensor:
    """Return the mean over classes of 2 |P T| / (|P| + |T|), as Milletari et al. 2016 but without squares.

    Args:
        probability: (B, K, h, w).
        pixels: Number of pixels of each class in each cell, (B, K, h, w); those without a class do not count.

    Source: arXiv:1606.04797, section 3.
    """
    both = (probability * pixels).sum((0, 2, 3))
    either = (probability * pixels.sum(1, keepdim=True) + pixels).sum((0, 2, 3))
    return ((2 * both + 1) / (either + 1)).mean()


def confusion(target: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Return how many pixels of each class, in rows, were predicted as each class, int64 (K, K).

    Args:
        target: Classes, or IGNORED for pixels that do not count.
        predicted: Classes, of the same shape.
        classes: K.
    """
    own = target != IGNORED
    pairs = torch.where(own, target * classes + predicted, classes * classes)
    # bincount would wait for a GPU.
    counts = torch.zeros(classes * classes + 1, dtype=torch.int64, device=target.device)
    return counts.index_add_(0, pairs.flatten(), torch.ones_like(pairs.flatten()))[:-1].view(classes, classes)


def metrics(sums: Mapping[str, Tensor], count: int) -> dict[str, float]:
    """Return the loss of a labelled pixel and, in validation, mean IoU and the share of pixels that are right."""
    found = {"loss": float(sums["loss"]) / max(count, 1)}
    if "confusion" in sums:
        counts = sums["confusion"]
        right, union = counts.diag(), counts.sum(0) + counts.sum(1) - counts.diag()
        found["miou"] = float((right / union)[union > 0].mean()) if count else 0.0
        found["pixel_accuracy"] = float(right.sum() / counts.sum().clamp(min=1))
    return found


def predict(model: nn.Module, batch: Batch, params: SegmentationParams) -> Batch:
    """Return `label`, the class of each pixel at the size of the mask, uint8 (B, H, W), and `confusion`, (B, K, K).

    Each image is computed by itself, so that neither its batch nor padding changes it; `label` is padded with 0.
    """
    labels, counts = torch.zeros_like(batch["mask"]), []
    images = zip(batch["image_size"].cpu().tolist(), batch["mask_size"].cpu().tolist(), strict=True)
    for number, ((height, width), (rows, columns)) in enumerate(images):
        logits = model(_planes(batch["image"][number : number + 1, :height, :width]))[0][0]
        label = labels_at(logits, rows, columns)
        labels[number, :rows, :columns] = label
        counts.append(confusion(_targets(batch["mask"][number, :rows, :columns]), label, len(logits)))
    return {"label": labels, "confusion": torch.stack(counts).int()}
