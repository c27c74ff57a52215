"""Episodes of training, their augmentation, and the loss of a batch of them."""

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from components.contracts import Batch, Batches, Better, Shard, StepOutput
from components.datasets.batches import Gathered, in_order
from components.images.augment import warped
from components.tasks.few_shot import episodes, prepare
from components.tasks.few_shot.episodes import TURNS, Pictures
from components.tasks.few_shot.model import compare, network
from components.tasks.few_shot.params import FewShotParams

BETTER: dict[str, Better] = {"loss": "less", "accuracy": "more"}


def batches(split: Pictures, params: FewShotParams, shard: Shard) -> Batches:
    """Return an epoch's batches of episodes, drawn by seed, epoch and index; each worker gets a share of each.

    Raises:
        PedigreeError: there are too few classes with enough images.
    """
    train = params.train
    seed = (train.seed, shard.epoch)
    every = episodes.drawn(split, train.episodes, train.augment.turns, train.batch_size, seed)
    return replace(every, rank=shard.rank, world=shard.world)


def eval_batches(split: Pictures, size: int) -> Gathered:
    """Return batches of about `size` images, which may be those of episodes, in the split's order."""
    images = 1 if split.episodes is None else split.episodes[0].numel()
    return in_order(split, max(1, size // images))


def augment(batch: Batch, params: FewShotParams) -> Batch:
    """Turn the images of each class, and rotate, scale, shear and shift each image, without changing the input.

    Args:
        batch: `image`, uint8 (B, W, n, C, H, W), and `turn`, the quarter turns of each class, int64 (B, W).
        params: `train.augment` selects the changes.

    Returns:
        The batch with new images, float32 where they are resampled.
    """
    chosen, image = params.train.augment, batch["image"]
    if chosen.turns:
        turned = torch.stack([image.rot90(turns, (-2, -1)) for turns in range(TURNS)])
        ways = batch["turn"].flatten()
        # (B W, n, C, H, W), each class from its own turn
        image = turned.flatten(1, 2)[ways, torch.arange(len(ways), device=ways.device)].view_as(image)
    if chosen.rotate or chosen.scale or chosen.shift:
        flat = image.flatten(0, 2)
        image = warped(flat, chosen.rotate, chosen.scale, chosen.shift).view(image.shape)
    return {**batch, "image": image}


def step(model: nn.Module, batch: Batch, params: FewShotParams) -> StepOutput:
    """Return the summed loss of the queries of a batch of episodes, and how many are recognised.

    Args:
        model: Maps images (N, C, H, W) to embeddings (N, D).
        batch: `image` (B, W, n, C, H, W): of each class first the support, then the queries.
        params: `train.episodes.shots` is the size of the support in training; in validation, it is one image.
    """
    image = batch["image"]
    shots = params.train.episodes.shots if model.training else prepare.SHOTS
    embedding = model(image.flatten(0, 2)).float().unflatten(0, image.shape[:3])  # (B, W, n, D)
    queries = embedding[:, :, shots:]  # (B, W, q, D)
    logits = compare(embedding[:, :, :shots].mean(2), queries.flatten(1, 2)).flatten(0, 1)  # (B W q, W)
    target = torch.arange(queries.shape[1], device=logits.device)[:, None].expand(queries.shape[:3]).flatten()
    return StepOutput(
        loss=F.cross_entropy(logits, target, reduction="sum"),
        count=len(target),
        sums={"accuracy": (logits.detach().argmax(1) == target).double().sum()},
    )


def predict(model: nn.Module, batch: Batch, params: FewShotParams) -> Batch:
    """Return `embedding`, float32 (B, …, D), `label`, and for taught classes `logits`, float32 (B, K)."""
    image, label = batch["image"], batch["label"]
    embedding = model(image.flatten(0, -4)).float()
    if params.prepare.taught and image.ndim == 4:
        return {"embedding": embedding, "label": label, "logits": network(model).classify(embedding, label)}
    return {"embedding": embedding.unflatten(0, image.shape[:-3]), "label": label}


def calibrate(model: nn.Module, predictions: Iterable[Batch], params: FewShotParams) -> None:
    """Give the classes of validation prototypes, from their images in its episodes; taught classes have theirs."""
    if params.prepare.taught:
        return
    embeddings, labels = [], []
    for each in predictions:
        images = each["embedding"]  # (B, W, n, D)
        embeddings.append(images.flatten(0, 2))
        labels.append(each["label"][:, :, None].expand(images.shape[:3]).flatten())
    model.to("cpu")  # where the predictions are
    network(model).learn(torch.cat(embeddings), torch.cat(labels))
