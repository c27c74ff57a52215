"""Loss and predictions of a batch of rows."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from components.classification import calibration, decision, loss
from components.contracts import Batch, Better, StepOutput
from components.tables.columns import UNSEEN
from components.tables.facts import CATEGORY, LABEL, NUMBER
from components.tasks.tabular.params import TabularParams

BETTER: Mapping[str, Better] = {"loss": "less", "accuracy": "more"}
"""Validation metrics, of which only the loss is measured for a quantity."""
QUANTITY = "quantity"
"""Name of the predicted quantity, float32 (B,)."""


def augment(batch: Batch, params: TabularParams) -> Batch:
    """Replace a share of the categories by that of unseen ones, so that the network learns what to make of them."""
    if CATEGORY not in batch or not params.train.unseen:
        return batch
    category = batch[CATEGORY]
    hidden = torch.rand(category.shape, device=category.device) < params.train.unseen
    return {**batch, CATEGORY: torch.where(hidden, UNSEEN, category)}


def outputs(model: nn.Module, batch: Batch) -> Tensor:
    """Return the network's outputs: see `model.Predictor`."""
    found: Tensor = model(batch.get(NUMBER), batch.get(CATEGORY))
    return found


def step(model: nn.Module, batch: Batch, params: TabularParams) -> StepOutput:
    """Return the summed loss of a batch; labels are smoothed in training only.

    It is the cross-entropy in nats, of which `loss.outcome` also counts correct answers, or for a quantity the
    squared error in units of its variance.

    Args:
        model: A `model.Predictor`.
        batch: `number`, float32 (B, numbers), and `category`, int32 (B, categories), as there are any, and `label`,
            int64 (B,), or float32 (B,) for a quantity.
        params: `train.label_smoothing` is used.
    """
    found, label = outputs(model, batch), batch[LABEL]
    if not label.is_floating_point():
        return loss.outcome(found, batch, params.train.label_smoothing if model.training else 0.0)
    mean, deviation = model.get_buffer("mean"), model.get_buffer("deviation")
    target = (label - mean) / deviation
    guess = found[..., 0].float() if model.training else (found[:, 0].float() - mean) / deviation
    squares = (guess - target).square()  # (members, B), or (B,)
    return StepOutput((squares.mean(0) if squares.ndim == 2 else squares).sum(), len(label))


def predict(model: nn.Module, batch: Batch, params: TabularParams) -> Batch:
    """Return `logits`, float32 (B, classes), `label` and maybe the threshold; or `quantity`, (B,), and `label`."""
    found, label = outputs(model, batch), batch[LABEL]
    if label.is_floating_point():
        return {QUANTITY: found[:, 0].detach().float(), LABEL: label}
    predictions = loss.predictions(found, batch)
    if last := decision.of(model):
        predictions[decision.THRESHOLD] = last.threshold.expand(len(label), -1)
    return predictions


def calibrate(model: nn.Module, predictions: Iterable[Batch], params: TabularParams) -> None:
    """Choose the temperature of a classifier on the predictions for the validation split."""
    if last := calibration.of(model):
        last.choose(predictions)
