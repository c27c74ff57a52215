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

    Args:
        logits: (N, classes).
        batch: `label`, int64 (N,); for mixed samples also `label_mixed`, int64 (N,), and `mix`, float32 (N,), the
            weight of `label`.
        smoothing: Share of the target that is spread over all classes; 0 outside training.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses, correct = _judge(logits, batch["label"], smoothing)
    if "mix" in batch:
        share = batch["mix"]
        mixed_losses, mixed_correct = _judge(logits, batch["label_mixed"], smoothing)
        losses = share * losses + (1 - share) * mixed_losses
        correct = share * correct + (1 - share) * mixed_correct
    return StepOutput(losses.sum(), len(losses), {"accuracy": correct.double().sum()})


def _judge(logits: Tensor, label: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the loss of each sample and whether its answer is correct, both (N,)."""
    losses = F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)
    return losses, logits.argmax(1) == label


def predictions(logits: Tensor, batch: Batch) -> Batch:
    """Return `logits`, float32 (N, classes), and `label`, int64 (N,)."""
    return {"logits": logits.detach().float(), "label": batch["label"]}
