"""Answers of a served classifier."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


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
