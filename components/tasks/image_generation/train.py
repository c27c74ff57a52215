"""The loss of a rectified flow, and the image that is sampled for each test image."""

from pathlib import Path

import torch
from torch import nn

from components import figures
from components.contracts import Batch, Better, Manifest, StepOutput
from components.images.augment import crop_and_flip
from components.images.labels.labelled import Facts
from components.tasks.image_generation.model import NO_CLASS
from components.tasks.image_generation.params import FlowParams
from components.tasks.image_generation.sampling import TOGETHER, noise, sample

SEEDS = 1_000_003
"""Factor of the seed of an evaluation, which is added to an image's position in the split."""
BETTER: dict[str, Better] = {"loss": "less"}


def augment(batch: Batch, params: FlowParams) -> Batch:
    """Mirror a random half of the images, uint8 (N, C, H, W), if the parameters say so."""
    if not params.train.flip:
        return batch
    return {**batch, "image": crop_and_flip(batch["image"], 0, 0.5, None)}


def step(model: nn.Module, batch: Batch, params: FlowParams) -> StepOutput:
    """Return the summed loss of a batch: the squared error of the velocity, averaged over an image's pixels.

    Rectified flow (Liu et al. 2022, arXiv:2209.03003): on the straight line x_t = (1 - t) x0 + t x1 from noise x0
    to an image x1 the velocity is x1 - x0. Times are logit-normal, as neither end of the line is hard (Esser et al.
    2024, arXiv:2403.03206, section 3.1). In training, some images lose their class.

    Args:
        model: A `Flow`, maybe wrapped.
        batch: `image`, uint8 (N, C, H, W), and `label`, int64 (N,).
        params: `train.time` and `train.label_drop` are used.
    """
    image, label = batch["image"].float() / 127.5 - 1, batch["label"]
    count, device = len(image), image.device
    start = torch.randn_like(image)
    chosen = params.train.time
    time = (torch.randn(count, device=device) * chosen.std + chosen.mean).sigmoid()
    if model.training:
        label = torch.where(torch.rand(count, device=device) < params.train.label_drop, NO_CLASS, label)
    x = torch.lerp(start, image, time[:, None, None, None])
    velocity = model(x, time, label)
    loss = (velocity.float() - (image - start)).square().mean((1, 2, 3)).sum()
    return StepOutput(loss, count)


def snapshot(model: nn.Module, manifest: Manifest, params: FlowParams, file: Path) -> None:
    """Write a PNG with samples of the network in evaluation mode: a column for each class, a row for each seed."""
    facts = Facts.model_validate(manifest.facts)
    columns = min(len(facts.classes), TOGETHER)
    rows = TOGETHER // columns
    seeds = [row for row in range(rows) for _ in range(columns)]
    start = noise(seeds, (facts.channels, facts.size, facts.size))
    label = torch.arange(columns).repeat(rows)
    images = sample(model, start, label, params.evaluate.sampling).permute(0, 2, 3, 1).squeeze(3).numpy()
    figures.write_mosaic([list(images[row * columns : (row + 1) * columns]) for row in range(rows)], file)


def predict(model: nn.Module, batch: Batch, params: FlowParams) -> Batch:
    """Sample an image of the class of each image of a batch, seeded by its position in the split.

    Returns `image`, uint8 (N, C, H, W), and `label`, int64 (N,).
    """
    image, label = batch["image"], batch["label"]
    seeds = [params.evaluate.seed * SEEDS + number for number in batch["number"].cpu().tolist()]
    start = noise(seeds, tuple(image.shape[1:]))
    return {"image": sample(model, start, label.cpu(), params.evaluate.sampling), "label": label}
