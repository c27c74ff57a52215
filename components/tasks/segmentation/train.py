"""Augmentation, loss and predictions of a batch of images."""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Batch, Better, StepOutput
from components.images.augment import recoloured, resampled
from components.images.unet import UNet, labels_at
from components.tasks.segmentation.model import class_weights
from components.tasks.segmentation.params import SegmentationParams

BETTER: dict[str, Better] = {"loss": "less", "miou": "more", "pixel_accuracy": "more"}
IGNORED = -1
"""Target of pixels without a class."""


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
    with torch.autocast(batch["image"].device.type, enabled=False):  # coordinates need more than the 8 bits of bf16
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

    Padding has no class. In validation it may change what is predicted at the border of images that are smaller
    than others of the batch; `predict` computes each image by itself.

    Args:
        model: Maps images (N, 3, H, W) to logits (N, K, H, W).
        batch: From `augment`, or of the splits train and val.
        params: `train.loss`.
    """
    weights = class_weights(model)
    logits, target = model(_planes(batch["image"])), _targets(batch["mask"])
    loss, count = _loss(logits, target, weights, params)
    if model.training:
        return StepOutput(loss, count)
    return StepOutput(loss, count, {"confusion": confusion(target, logits.argmax(1), len(weights)).double()})


def _planes(image: Tensor) -> Tensor:
    """Return images (N, H, W, 3) as (N, 3, H, W), in the memory format of the network's convolutions."""
    return image.permute(0, 3, 1, 2)


def _targets(mask: Tensor) -> Tensor:
    """Return the index of each pixel's class, int64, or IGNORED."""
    return mask.long() - 1


def _loss(logits: Tensor, target: Tensor, weights: Tensor, params: SegmentationParams) -> tuple[Tensor, Tensor]:
    """Return the sum of the loss over labelled pixels, of which Dice's is the same for each, and their number."""
    # A row for each pixel, as the loss of maps has no implementation that repeats its results on a GPU.
    rows, indices = logits.float().permute(0, 2, 3, 1).flatten(0, 2), target.flatten()
    count = (indices != IGNORED).sum()
    loss = F.cross_entropy(rows, indices, weights, reduction="sum", ignore_index=IGNORED)
    if params.train.loss.dice:
        loss = loss + params.train.loss.dice * count * (1 - soft_dice(rows, indices))
    return loss, count


def soft_dice(rows: Tensor, indices: Tensor) -> Tensor:
    """Return the mean over classes of 2 |P T| / (|P| + |T|), as Milletari et al. 2016 but without squares.

    Args:
        rows: Logits, (M, K).
        indices: Classes, (M,), or IGNORED.

    Source: arXiv:1606.04797, section 3.
    """
    own = (indices != IGNORED)[:, None]
    probability = rows.softmax(1) * own  # (M, K)
    truth = (indices[:, None] == torch.arange(rows.shape[1], device=rows.device)).float()
    both, either = (probability * truth).sum(0), (probability + truth).sum(0)
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
        logits = cast(UNet, model).coarse(_planes(batch["image"][number : number + 1, :height, :width]))[0]
        label = labels_at(logits, rows, columns)
        labels[number, :rows, :columns] = label
        counts.append(confusion(_targets(batch["mask"][number, :rows, :columns]), label, len(logits)))
    return {"label": labels, "confusion": torch.stack(counts).int()}
