"""Loss of a batch of pairs, validation metrics, and the predictions that evaluation needs."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Batch, Better, StepOutput
from components.scores import exponential
from components.tasks.translation.model import Translator
from components.tasks.translation.params import TranslationParams
from components.text.networks.transformer import present

BETTER: Mapping[str, Better] = {"loss": "less", "perplexity": "less", "token_accuracy": "more"}
"""Validation metrics, and whether less or more is better."""
LOGITS = 2**26
"""Maximum number of logits in memory in evaluation, 256 MB."""
IGNORED = -100
"""A target of padding, which has no loss."""


def step(model: nn.Module, batch: Batch, params: TranslationParams) -> StepOutput:
    """Return the summed cross-entropy of a batch's target tokens, in nats, and in validation how many are right.

    Targets are smoothed in training only, so that the validation loss is that of the texts.

    Args:
        model: A `Translator`.
        batch: `source` and `target`, int32 (B, S) and (B, T), and their lengths, int64 (B,).
        params: `train.label_smoothing` is used.
    """
    count = batch["target_length"].sum()
    if not model.training:
        losses, right = _scored(model, batch)
        return StepOutput(losses.double().sum(), count, {"token_accuracy": right.sum().double()})
    logits, target = _logits_and_target(model, batch)
    loss = F.cross_entropy(
        logits.flatten(0, 1),
        target.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=params.train.label_smoothing,
    )
    return StepOutput(loss, count)


def _logits_and_target(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return logits, float32 (B, T, vocabulary), and targets, int64 (B, T)."""
    source, target = batch["source"].long(), batch["target"].long()
    logits = model(source, batch["source_length"], target)
    inside = present(batch["target_length"], target.shape[1])
    return logits.float(), target.where(inside, IGNORED)


def _scored(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the loss of each target token in nats, 0 for padding, and whether it is the likeliest: both (B, T).

    At most `LOGITS` logits are computed at once.
    """
    assert isinstance(model, Translator), "validation and evaluation have the bare network"
    samples, tokens = batch["target"].shape
    rows = max(1, LOGITS // (tokens * model.network.output.out_features))
    losses, right = [], []
    for first in range(0, samples, rows):
        logits, target = _logits_and_target(
            model, {name: each[first : first + rows] for name, each in batch.items()}
        )
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none")
        losses.append(loss.view_as(target))
        right.append(logits.argmax(2) == target)
    return torch.cat(losses), torch.cat(right)


def metrics(sums: Mapping[str, Tensor], count: int) -> dict[str, float]:
    """Return the mean loss in nats per token and the perplexity; in validation, also the share of right tokens.

    A token is right if it is the likeliest one after the reference's tokens before it.
    """
    means = {name: float(total) / count for name, total in sums.items()}
    return means | {"perplexity": exponential(means["loss"])}


def predict(model: nn.Module, batch: Batch, params: TranslationParams) -> Batch:
    """Return the best translation of each source and how probable it and the reference are.

    Args:
        model: A `Translator`.
        batch: As for `step`.
        params: `evaluate.search` is used.

    Returns:
        `translation`, int64 (B, T), zero-padded, with `translation_length`, int64 (B,); its `score`, float64 (B,);
        and the `loss` of the reference, float64 (B,), the sum in nats.
    """
    assert isinstance(model, Translator), "predictions need the search"
    found = model.translate(batch["source"].long(), batch["source_length"], params.evaluate.search)
    best = [hypotheses[0] for hypotheses in found]
    length = torch.tensor([len(each.tokens) for each in best])
    ids = torch.zeros(len(best), max(1, int(length.max())), dtype=torch.int64)
    for row, each in zip(ids, best, strict=True):
        row[: len(each.tokens)] = torch.tensor(each.tokens, dtype=torch.int64)
    return {
        "translation": ids,
        "translation_length": length,
        "score": torch.tensor([each.score for each in best], dtype=torch.float64),
        "loss": _scored(model, batch)[0].double().sum(1),
    }
