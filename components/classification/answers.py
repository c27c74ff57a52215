"""Answers of a served classifier."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from components.classification import decision


def answers(logits: Tensor, classes: Sequence[str], column: str) -> list[dict[str, Any]]:
    """Return answers of a served model for logits (N, classes): the class in `column`, and the probabilities.

    As in evaluation, the first of several equal logits wins.
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


def decided(
    logits: Tensor, classes: Sequence[str], positive: int | None, threshold: Tensor
) -> list[dict[str, Any]]:
    """Return answers that thresholds decide, as in evaluation.

    Args:
        logits: (N, classes).
        classes: Class names.
        positive: Index of the positive one of two classes; None if a sample can have several labels.
        threshold: (1,), or for several labels (classes,).
    """
    probability = decision.probabilities(logits, positive)  # (N, K)
    if positive is None:
        levels = dict(zip(classes, threshold.tolist(), strict=True))
        return [
            {
                "labels": [name for name, flag in zip(classes, flags, strict=True) if flag],
                "probabilities": dict(zip(classes, each, strict=True)),
                "thresholds": levels,
            }
            for flags, each in zip((probability >= threshold).tolist(), probability.tolist(), strict=True)
        ]
    labels = decision.decided(probability, threshold, positive).tolist()
    return [
        answer
        | {"label": classes[label], "probability": answer["probabilities"][classes[label]], "threshold": level}
        for answer, label in zip(answers(logits, classes, "label"), labels, strict=True)
        for level in threshold.tolist()
    ]
