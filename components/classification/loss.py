"""Loss, accuracy and predictions of any classifier."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from components.contracts import Batch, Better, StepOutput

BETTER: Mapping[str, Better] = {"loss": "less", "accuracy": "more"}
"""Validation metrics, and whether less or more is better."""


def outcome(logits: Tensor, batch: Batch, smoothing: float) -> StepOutput:
    """Return the summed cross-entropy of a batch's samples, in nats, and the number of correct answers.

    A mixed sample has two labels; losses and correct answers are weighted by their shares, as in the mixup authors'
    code (Zhang et al. 2018, arXiv:1710.09412). Losses are float32 under autocast, too.

    Where a sample can have several labels, the loss of a sample is the mean of the binary cross-entropies of all
    classes, and its accuracy the share of classes for which the more probable of yes and no is right.

    Args:
        logits: (N, classes), or (M, N, classes) of the members of an ensemble in training: each learns from its
            own, and the losses and answers of all are averaged.
        batch: `label`, int64 (N,), or uint8 (N, classes) of 0 and 1 if a sample can have several; for mixed samples
            also `label_mixed`, of the same shape, and `mix`, float32 (N,), the weight of `label`; and to weight the
            losses, `weight` as `balanced` returns it, of the same shape as `label`, and for mixed samples
            `weight_mixed`.
        smoothing: Share of the target that is spread over all classes; 0 outside training.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    members = logits if logits.ndim == 3 else logits[None]
    outcomes = [_mixed(each, batch, smoothing) for each in members]
    losses, correct = outcomes[0]
    if len(outcomes) > 1:
        losses, correct = (
            torch.stack([each.float() for each in part]).mean(0) for part in zip(*outcomes, strict=True)
        )
    return StepOutput(losses.sum(), len(losses), {"accuracy": correct.double().sum()})


def _mixed(logits: Tensor, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the loss of each sample and how far its answer is correct, both (N,)."""
    losses, correct = _judge(logits, batch["label"], smoothing, batch.get("weight"))
    if "mix" in batch:
        share = batch["mix"]
        mixed_losses, mixed_correct = _judge(logits, batch["label_mixed"], smoothing, batch.get("weight_mixed"))
        losses = share * losses + (1 - share) * mixed_losses
        correct = share * correct + (1 - share) * mixed_correct
    return losses, correct


def _judge(logits: Tensor, label: Tensor, smoothing: float, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    if label.ndim == 2:
        target = label.to(logits.dtype)
        smooth = target * (1 - smoothing) + smoothing / 2 if smoothing else target
        each = F.binary_cross_entropy_with_logits(logits, smooth, weight, reduction="none")
        return each.mean(1), ((logits > 0) == (label > 0)).to(logits.dtype).mean(1)
    losses = F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)
    return losses if weight is None else weight * losses, logits.argmax(1) == label


def balanced(label: Tensor) -> Tensor:
    """Return a weight for each label with which all classes count equally; their mean over all samples is 1.

    Args:
        label: Labels of all training samples, int64 (N,): the weight of a class is N / (classes * its samples), as
            that of scikit-learn's `class_weight="balanced"`. Or uint8 (N, classes) of 0 and 1: for each class,
            those with it count as much as those without.

    Returns:
        float32, of the shape of `label`.
    """
    if label.ndim == 1:
        counts = label.bincount().double()
        return (len(label) / ((counts > 0).sum() * counts))[label].float()
    share = label.double().mean(0).clamp(0.5 / len(label), 1 - 0.5 / len(label))
    return torch.where(label > 0, 0.5 / share, 0.5 / (1 - share)).float()


def predictions(logits: Tensor, batch: Batch) -> Batch:
    """Return `logits`, float32 (N, classes), and `label` as it is in the batch."""
    return {"logits": logits.detach().float(), "label": batch["label"]}
