"""How a batch of images is augmented, what its loss is, and what is counted."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components import classifier
from components.batches import shuffled
from components.classifier import metrics
from components.contracts import Batch, Batches, Plan, StepOutput
from components.vision.params import VisionParams

__all__ = ["augment", "batches", "metrics", "predict", "step"]

MIRRORED = "mirrored"
"""Name of the tensor, bool (N,), that says which images of a batch are mirrored."""


def batches(split: Batch, params: VisionParams, plan: Plan) -> Batches:
    """Return an epoch's training batches; where mirroring alternates they say which images are mirrored.

    Half of the images are so in the first epoch, the others in the second, and so on: in two epochs an image is
    seen both ways, where chance shows half of them one way twice (Jordan 2024, arXiv:2404.00498, section 3.6).
    """
    if params.train.augment.flip == "alternate":
        generator = torch.Generator().manual_seed(params.train.seed)
        half = torch.randint(2, (len(split["label"]),), generator=generator)
        split = split | {MIRRORED: ((half + plan.epoch) % 2 == 0).to(split["label"].device)}
    return shuffled(split, params, plan)


def augment(batch: Batch, params: VisionParams) -> Batch:
    """Crop, mirror and mix a batch of images at random, on their device, leaving the given tensors as they are.

    Args:
        batch: `image` (N, C, H, W), uint8 or float on the scale 0..255, and `label`, int64 (N,).
        params: `train.augment` says which changes are made.

    Returns:
        The batch with new images, uint8 if they were and mixup does not blend them into float32. With `mix`
        it also has the partners' labels as `label_mixed`, int64 (N,), and as `mix`, float32 (N,), the share
        of each image that is still its own.
    """
    chosen = params.train.augment
    image = batch["image"]
    if chosen.crop or chosen.flip:
        image = _crop_and_flip(image, chosen.crop, 0.5 if chosen.flip else 0, batch.get(MIRRORED))
    batch = {name: tensor for name, tensor in batch.items() if name != MIRRORED}
    if chosen.mix == "none":
        return {**batch, "image": image}
    count, device = len(image), image.device
    partner = torch.randperm(count, device=device)
    alpha = torch.full((), chosen.mix_alpha, device=device)
    # Checked, it would wait for a GPU.
    share = torch.distributions.Beta(alpha, alpha, validate_args=False).sample((count,))
    image, share = (_mixup if chosen.mix == "mixup" else _cutmix)(image, image[partner], share)
    return {**batch, "image": image, "label_mixed": batch["label"][partner], "mix": share}


def _crop_and_flip(image: Tensor, pad: int, share: float, mirrored: Tensor | None) -> Tensor:
    """Shift each image by up to `pad` pixels, zeros coming in at the border, and mirror some.

    These are the `mirrored`, bool (N,), or a `share` of them by chance.

    All pixels of the batch are fetched in one gather: 440,000 images of 3x32x32 a second and core, where
    indexing a view of windows gives 180,000, grouping by offset 80,000, and a loop over samples 170,000.
    """
    count, channels, height, width = image.shape
    row, column = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
    top, left = torch.randint(2 * pad + 1, (2, count, 1), device=image.device)  # (N, 1) each
    drawn = torch.rand(count, 1, device=image.device) < share
    mirrored = drawn if mirrored is None else mirrored[:, None]
    rows = row + top  # (N, H), in the padded image
    columns = torch.where(mirrored, column.flip(0), column) + left  # (N, W)
    pixels = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]  # (N, H, W)
    padded = F.pad(image, (pad, pad, pad, pad)).flatten(2)  # (N, C, padded H * padded W)
    return padded.gather(2, pixels.view(count, 1, -1).expand(-1, channels, -1)).view_as(image)


def _mixup(image: Tensor, other: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each image with another, keeping `share` (N,) of it: Zhang et al. 2018, arXiv:1710.09412."""
    return torch.lerp(other.float(), image.float(), share[:, None, None, None]), share


def _cutmix(image: Tensor, other: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Put a box of another image into each image: Yun et al. 2019, arXiv:1905.04899.

    The box has 1 - `share` (N,) of the area, less what lies beyond the border; the share returned is that of
    the pixels that are left.
    """
    side = (1 - share).sqrt()[:, None]  # (N, 1), of an image of side 1
    centre = torch.rand(2, len(image), 1, device=image.device)
    inside = [
        ((torch.arange(size, device=image.device) + 0.5) / size - at).abs() < side / 2  # (N, size)
        for size, at in zip(image.shape[2:], centre, strict=True)
    ]
    box = inside[0][:, :, None] & inside[1][:, None, :]  # (N, H, W)
    return torch.where(box[:, None], other, image), 1 - box.float().mean((1, 2))


def step(model: nn.Module, batch: Batch, params: VisionParams) -> StepOutput:
    """Return a batch's loss and sums, as `classifier.outcome` does; labels are smoothed in training alone.

    Args:
        model: Images (N, C, H, W) to logits (N, classes).
        batch: From a split, or from `augment`.
        params: `train.label_smoothing` is used.
    """
    smoothing = params.train.label_smoothing if model.training else 0.0
    return classifier.outcome(model(batch["image"]), batch, smoothing)


def predict(model: nn.Module, batch: Batch) -> Batch:
    """Return `logits`, float32 (N, classes), and `label`, int64 (N,), on the CPU; the model is in eval mode."""
    return classifier.predictions(model(batch["image"]), batch)
