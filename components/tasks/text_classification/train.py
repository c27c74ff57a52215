"""Batches, loss and predictions of texts."""

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor, nn

from components.classification import decision, loss
from components.contracts import Batch, Batches, Shard, StepOutput
from components.datasets.batches import shuffled
from components.datasets.splits import Columns
from components.tasks.text_classification.params import TextParams
from components.tasks.text_classification.prepare import LABEL

WEIGHT = "weight"
"""Name of the tensor of the losses' weights, float32, of the shape of the labels."""


def batches(split: Columns, params: TextParams, shard: Shard) -> Batches:
    """Return an epoch's batches of texts of similar length, with `class_weights: balanced` with their weights."""
    if params.train.class_weights == "balanced":
        split = replace(split, dense=split.dense | {WEIGHT: loss.balanced(split[LABEL])})
    return shuffled(split, params, shard)


def logits(model: nn.Module, batch: Batch) -> Tensor:
    """Return a batch's logits, (N, classes)."""
    found: Tensor = model(batch["token"].long(), batch["token_length"], batch["first"])
    return found


def step(model: nn.Module, batch: Batch, params: TextParams) -> StepOutput:
    """Return a batch's loss and sums from `loss.outcome`; labels are smoothed in training only.

    Args:
        model: A `Classifier`.
        batch: `token`, int32 (N, T), and `token_length` and `first`, int64 (N,); `label`, int64 (N,) or uint8
            (N, classes); maybe `weight`.
        params: `train.label_smoothing` is used.
    """
    smoothing = params.train.label_smoothing if model.training else 0.0
    return loss.outcome(logits(model, batch), batch, smoothing)


def predict(model: nn.Module, batch: Batch, params: TextParams) -> Batch:
    """Return `logits`, float32 (N, classes), `label`, and thresholds if a text can have several labels."""
    found = loss.predictions(logits(model, batch), batch)
    if last := decision.of(model):
        found[decision.THRESHOLD] = last.threshold.expand(len(found["logits"]), -1)  # (N, classes)
    return found


def calibrate(model: nn.Module, predictions: Iterable[Batch], params: TextParams) -> None:
    """Choose the thresholds of several labels on the predictions for the validation split."""
    if last := decision.of(model):
        last.choose(predictions)
