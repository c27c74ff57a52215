"""Augmentation, loss and predictions of a batch of images with boxes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.contracts import Batch, Batches, Better, StepOutput
from components.datasets.splits import Columns
from components.images import box_augment, box_targets
from components.images.augment import recoloured
from components.images.box_targets import Detections
from components.images.measures import average_precision, counting
from components.tasks.object_detection.model import STRIDE, inside
from components.tasks.object_detection.params import DetectionParams

BETTER: dict[str, Better] = {"loss": "less", "map50": "more"}
BINS = 200
"""Bins of scores, from which validation computes average precision: what adds up over batches."""
LEAST = 0.005
"""Least score of a detection; those below would make evaluation slow and hardly change it."""


def augment(batch: Batch, params: DetectionParams) -> Batch:
    """Randomly turn, scale, mirror and recolour a batch of images with their boxes; images become float32."""
    chosen = params.train.augment
    image, own, size = batch["image"].permute(0, 3, 1, 2), batch["boxes"], batch["image_size"]
    if chosen.turn:
        # Drawn on the CPU, as the shape of the batch depends on it.
        image, own, size = box_augment.turn(image, own, size, int(torch.randint(4, ())))
    if chosen.scale > 1 or chosen.flip or chosen.flip_vertical:
        shares = (chosen.flip / 2, chosen.flip_vertical / 2)
        image, own = box_augment.scale_and_flip(image, own, batch["boxes_length"], chosen.scale, *shares)
        size = box_augment.whole(image)
    image = image.permute(0, 2, 3, 1)
    if chosen.colour:
        image = recoloured(image.float(), chosen.colour)
    return {**batch, "image": image, "boxes": own, "image_size": size}


def step(model: nn.Module, batch: Batch, params: DetectionParams) -> StepOutput:
    """Return the losses of classes and boxes, summed; in evaluation mode also counts for `metrics`.

    Args:
        model: The detector.
        batch: `image` (B, H, W, 3) with `image_size`, `boxes` (B, M, 6) with `boxes_length`.
        params: `train.box_weight` is used.
    """
    size = batch["image_size"]
    logits, sides = model(_planes(batch["image"]), size)
    shape = (logits.shape[2], logits.shape[3])
    wanted = box_targets.targets(batch["boxes"], batch["boxes_length"], logits.shape[1], shape, STRIDE)
    within = inside(size, *shape, STRIDE)
    of_heat = box_targets.focal(logits, wanted.heat, wanted.valid & within)
    of_labels = box_targets.cross_entropy(logits, wanted)
    of_boxes = box_targets.giou(sides, wanted, STRIDE)
    sums = {
        "heat_loss": of_heat.detach().double(),
        "class_loss": of_labels.detach().double(),
        "box_loss": of_boxes.detach().double(),
    }
    if not model.training:
        found = box_targets.detect(logits, sides, size, within, average_precision.MOST, STRIDE)
        sums["histogram"] = _histogram(found, batch, logits.shape[1])
    loss = of_heat + of_labels + params.train.box_weight * of_boxes
    return StepOutput(loss, wanted.number, sums)


def _planes(image: Tensor) -> Tensor:
    """Return images (B, H, W, 3) as (B, 3, H, W)."""
    return image.permute(0, 3, 1, 2)


def _histogram(found: Detections, batch: Batch, classes: int) -> Tensor:
    """Return right and wrong detections at IoU .5 by class and bin of the score, and objects: (classes, 3, BINS).

    The number of objects is in the first bin of the third row.
    """
    own, length = batch["boxes"], batch["boxes_length"]
    right, wrong = box_targets.judged(found, own, length, float(average_precision.THRESHOLDS[0]))
    counts = torch.zeros(classes * 3 * BINS, dtype=torch.float64, device=own.device)
    place = 3 * BINS * found.label + (found.score * BINS).long().clamp(max=BINS - 1)
    counts.scatter_add_(0, place.flatten(), right.double().flatten())
    counts.scatter_add_(0, (place + BINS).flatten(), (wrong & (found.score >= LEAST)).double().flatten())
    counts.scatter_add_(0, (3 * BINS * own[..., 4].long() + 2 * BINS).flatten(), _objects(batch).double().flatten())
    return counts.view(classes, 3, BINS)


def _objects(batch: Batch) -> Tensor:
    """Return which rows of `boxes` are objects, neither padding nor crowd regions, bool (B, M)."""
    boxes = batch["boxes"]
    return (torch.arange(boxes.shape[1], device=boxes.device) < batch["boxes_length"][:, None]) & (
        boxes[..., 5] == 0
    )


def metrics(sums: Mapping[str, Tensor], count: int) -> dict[str, float]:
    """Return the losses a box and, in validation, `map50`: mAP@.5 from binned scores."""
    losses = ("loss", "heat_loss", "class_loss", "box_loss")
    found = {name: float(sums[name]) / max(count, 1) for name in losses}
    if "histogram" in sums:
        found["map50"] = _binned_precision(sums["histogram"].numpy())
    return found


def _binned_precision(counts: NDArray[np.float64]) -> float:
    """Return mAP@.5 from counts of `_histogram`; all detections in a bin count as equally likely."""
    values = []
    for right, wrong, objects in counts:
        if not objects[0]:
            continue
        nothing = np.zeros(BINS)
        columns = {
            "label": np.zeros(BINS + 1),
            "score": np.arange(BINS, -1, -1) / BINS,
            "true": np.append(nothing, objects[0]),
            "hit": np.append(right[::-1], 0)[:, None],
            "wrong": np.append(wrong[::-1], 0)[:, None],
        }
        values.append(average_precision.mean(columns, np.ones(BINS + 1)))
    return float(np.mean(values)) if values else 0.0


def predict(model: nn.Module, batch: Batch, params: DetectionParams) -> Batch:
    """Return what `detect` does, and `objects`, the true number of objects of each class, int64 (B, classes)."""
    labels = batch["boxes"][..., 4].long()
    objects = torch.zeros(len(labels), len(model.get_buffer("threshold")), dtype=torch.int64, device=labels.device)
    objects.scatter_add_(1, labels, _objects(batch).long())
    return detect(model, batch["image"], batch["image_size"]) | {"objects": objects}


def detect(model: nn.Module, image: Tensor, size: Tensor) -> Batch:
    """Return `boxes`, float32 (B, K, 4), `score`, float32 (B, K), and `label`, int64 (B, K), by descending score.

    K is 100, also for small images; the score of what is no detection is 0. Boxes are in pixels of the prepared
    image.

    Args:
        model: The detector.
        image: Padded images, uint8 (B, H, W, 3).
        size: Height and width of each, int64 (B, 2).
    """
    logits, sides = model(_planes(image), size)
    within = inside(size, logits.shape[2], logits.shape[3], STRIDE)
    found = box_targets.detect(logits, sides, size, within, average_precision.MOST, STRIDE)
    missing = average_precision.MOST - found.score.shape[1]
    score = torch.where(found.score >= LEAST, found.score, 0)
    pad = torch.nn.functional.pad
    return {
        "boxes": pad(found.boxes, (0, 0, 0, missing)),
        "score": pad(score, (0, missing)),
        "label": pad(found.label, (0, missing)),
    }


def calibrate(model: nn.Module, predictions: Iterable[Batch], params: DetectionParams) -> None:
    """Choose the threshold of each class with which objects of the validation split are counted best."""
    images = [
        counting.Scored(score[score > 0].double().numpy(), label[score > 0].numpy(), objects.numpy())
        for batch in predictions
        for score, label, objects in zip(batch["score"], batch["label"], batch["objects"], strict=True)
    ]
    model.get_buffer("threshold").copy_(torch.from_numpy(counting.thresholds(images)))


@dataclass(frozen=True)
class OfOneSize:
    """Batches of consecutive samples with images of one size, so that padding changes no prediction."""

    split: Columns
    parts: list[Tensor]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Batch:
        """Gather a batch."""
        return self.split.__getitems__(self.parts[index])


def eval_batches(split: Columns, size: int) -> Batches:
    """Divide a split into batches of at most `size` samples, in its order."""
    shapes = split.ragged["image"].shapes
    starts = [0, *((shapes[1:] != shapes[:-1]).any(1).nonzero().flatten() + 1).tolist(), len(shapes)]
    indices = torch.arange(len(shapes), device=split.device)
    parts = [part for first, end in pairwise(starts) for part in indices[first:end].split(size)]
    return OfOneSize(split, parts)
