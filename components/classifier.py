"""What training, evaluation and callers ask of any classifier: its loss, what is counted, its answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from components.contracts import Batch, StepOutput


def outcome(logits: Tensor, batch: Batch, smoothing: float) -> StepOutput:
    """Return the mean cross-entropy of a batch, in nats, and the sums of loss and of right answers.

    A mixed sample has two labels; loss and right answers are weighted by their shares, as in the authors' code
    of mixup (Zhang et al. 2018, arXiv:1710.09412). Losses are float32 under autocast too.

    Args:
        logits: (N, classes).
        batch: `label`, int64 (N,); of mixed samples also `label_mixed`, int64 (N,), and `mix`, float32 (N,), the
            share of each sample that has its own label.
        smoothing: Share of the target that is spread over all classes; 0 outside training.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses, right = _judge(logits, batch["label"], smoothing)
    if "mix" in batch:
        share = batch["mix"]
        mixed_losses, mixed_right = _judge(logits, batch["label_mixed"], smoothing)
        losses = share * losses + (1 - share) * mixed_losses
        right = share * right + (1 - share) * mixed_right
    sums = {"loss": losses.detach().double().sum(), "accuracy": right.double().sum()}
    return StepOutput(losses.mean(), sums, len(losses))


def _judge(logits: Tensor, label: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return each sample's loss and whether its answer is right, both (N,)."""
    losses = F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)
    return losses, logits.argmax(1) == label


def metrics(sums: Mapping[str, float], count: int) -> dict[str, float]:
    """Return mean loss, in nats, and accuracy from `outcome`'s sums and count, added up in any way."""
    return {name: sums[name] / count for name in ("loss", "accuracy")}


def predictions(logits: Tensor, batch: Batch) -> Batch:
    """Return `logits`, float32 (N, classes), and `label`, int64 (N,), on the CPU."""
    return {"logits": logits.detach().float().cpu(), "label": batch["label"].cpu()}


def answers(logits: Tensor, classes: Sequence[str], column: str) -> list[dict[str, Any]]:
    """Turn logits (N, classes) into N answers of a served model: the class in `column`, and the probabilities.

    The class is what evaluation would count: of equal logits the first.
    """
    labels, probabilities = logits.argmax(1).tolist(), logits.double().softmax(1).tolist()
    return [
        {
            column: classes[label],
            "probability": each[label],
            "probabilities": dict(zip(classes, each, strict=True)),
        }
        for label, each in zip(labels, probabilities, strict=True)
    ]
