"""Augmentation, loss and predictions of a batch of images."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from components.classification import decision, loss
from components.contracts import Batch, Batches, Shard, StepOutput
from components.datasets.batches import shuffled
from components.datasets.splits import Columns
from components.images.augment import crop_and_flip, cutmix, mixup
from components.tasks.image_classification.params import VisionParams

WEIGHT = "weight"
"""Name of the tensor of the losses' weights, float32, of the shape of the labels."""
MIRRORED = "mirrored"
"""Name of the tensor, bool (N,), that says which images of a batch are mirrored."""


def batches(split: Columns, params: VisionParams, shard: Shard) -> Batches:
    """Return an epoch's training batches; with `flip: alternate` they contain which images are mirrored.

    With `class_weights: balanced` they contain the weight of each image's loss, or of that of each of its labels.

    One half of the images is mirrored in the first epoch, the other half in the second, and so on. So each image is
    seen both ways in two epochs, whereas random mirroring would show half of them twice the same way (Jordan 2024,
    arXiv:2404.00498, section 3.6).
    """
    if params.train.class_weights == "balanced":
        split = replace(split, dense=split.dense | {WEIGHT: loss.balanced(split["label"])})
    if params.train.augment.flip == "alternate":
        generator = torch.Generator().manual_seed(params.train.seed)
        half = torch.randint(2, (len(split["label"]),), generator=generator)
        mirrored = ((half + shard.epoch) % 2 == 0).to(split.device)
        split = replace(split, dense=split.dense | {MIRRORED: mirrored})
    return shuffled(split, params, shard)


def augment(batch: Batch, params: VisionParams) -> Batch:
    """Randomly crop, mirror and mix a batch of images on the batch's device, without changing the input.

    Args:
        batch: `image` (N, C, H, W), uint8 or float on the scale 0..255, `label`, int64 (N,) or uint8 (N, classes),
            and with `class_weights` its `weight`.
        params: `train.augment` selects the changes.

    Returns:
        The batch with new images, float32 after mixup and otherwise of the same type. With `mix`, it also contains
        `label_mixed`, the labels of the mixed-in images, `weight_mixed`, their weights if there are any, and `mix`,
        float32 (N,), the share of each original image.
    """
    chosen = params.train.augment
    image = batch["image"]
    if chosen.crop or chosen.flip:
        image = crop_and_flip(image, chosen.crop, 0.5 if chosen.flip else 0, batch.get(MIRRORED))
    batch = {name: tensor for name, tensor in batch.items() if name != MIRRORED}
    if chosen.mix == "none":
        return {**batch, "image": image}
    count, device = len(image), image.device
    partner = torch.randperm(count, device=device)
    alpha = torch.full((), chosen.mix_alpha, device=device)
    # Validating the arguments would wait for a GPU.
    share = torch.distributions.Beta(alpha, alpha, validate_args=False).sample((count,))
    image, share = (mixup if chosen.mix == "mixup" else cutmix)(image, image[partner], share)
    mixed = {f"{name}_mixed": batch[name][partner] for name in ("label", WEIGHT) if name in batch}
    return {**batch, "image": image, **mixed, "mix": share}


def step(model: nn.Module, batch: Batch, params: VisionParams) -> StepOutput:
    """Return a batch's loss and sums from `loss.outcome`; labels are smoothed in training only.

    Args:
        model: Maps images (N, C, H, W) to logits (N, classes), or in training to those of several members.
        batch: A batch of a split, or from `augment`.
        params: `train.label_smoothing` is used.
    """
    smoothing = params.train.label_smoothing if model.training else 0.0
    return loss.outcome(model(batch["image"]), batch, smoothing)


def predict(model: nn.Module, batch: Batch, params: VisionParams) -> Batch:
    """Return `logits`, float32 (N, classes), `label`, and thresholds if the model, in eval mode, has any."""
    found = loss.predictions(model(batch["image"]), batch)
    if last := decision.of(model):
        found[decision.THRESHOLD] = last.threshold.expand(len(found["logits"]), -1)  # (N, K)
    return found


def calibrate(model: nn.Module, predictions: Iterable[Batch], params: VisionParams) -> None:
    """Choose the thresholds of two classes, or of several labels, on the predictions for the validation split."""
    if last := decision.of(model):
        last.choose(predictions)
