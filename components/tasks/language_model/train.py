"""Windows of text for truncated back-propagation through time, their loss, and the state between them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Batch, Better, Shard, StepOutput
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.scores import exponential
from components.tasks.language_model.params import LanguageParams, LanguageTrainParams

SEGMENT, WARM_UP = 4096, 1024
"""Scored tokens of a segment in evaluation, and the unscored tokens before it that warm up the state."""
LOGITS = 2**26
"""Maximum number of logits in memory in evaluation, 256 MB."""
POSITIONS = 256
"""Maximum number of positions computed at once in evaluation; more are not faster."""
BETTER: Mapping[str, Better] = {"loss": "less", "perplexity": "less"}
"""Validation metrics, and whether less or more is better."""
STATE = "state."
IGNORED = -1
"""A target that is not scored."""


@dataclass(frozen=True)
class Windows:
    """Batch i is window i of every stream; a worker has every world-th stream."""

    streams: Tensor  # (streams, length), of any integer type
    cuts: list[int]

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def __getitem__(self, index: int, /) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        first, last = self.cuts[index : index + 2]
        tokens = self.streams[:, first : last + 1].to(torch.int64)  # (B, T + 1)
        return {"input": tokens[:, :-1].contiguous(), "target": tokens[:, 1:].contiguous()}


def windows(split: Columns, params: LanguageParams, shard: Shard) -> Windows:
    """Cut the text into `batch_size` streams of equal length, and these into windows, dropping the remainder.

    Raises:
        PedigreeError: the text is too short for so many streams.
    """
    tokens, train = split["tokens"], params.train
    length = len(tokens) // train.batch_size
    if length < 2:
        raise PedigreeError(
            f"{len(tokens)} training tokens do not fill {train.batch_size} streams: lower train.batch_size "
            f"to at most {len(tokens) // 2}, or add text"
        )
    streams = tokens[: train.batch_size * length].view(train.batch_size, length)
    return Windows(streams[shard.rank :: shard.world], _cuts(length - 1, train, shard.epoch))


def _cuts(targets: int, train: LanguageTrainParams, epoch: int) -> list[int]:
    """Return the start of each window of an epoch, and the end of the last one."""
    if not train.random_window:
        return [*range(0, targets, train.window), targets]
    # As in section 5 of AWD-LSTM (github.com/salesforce/awd-lstm-lm): around the window, or rarely half of it.
    random = np.random.default_rng((train.seed, epoch))
    cuts = [0]
    while cuts[-1] < targets:
        base = train.window if random.random() < 0.95 else train.window / 2
        cuts.append(min(cuts[-1] + max(5, int(random.normal(base, 5))), targets))
    return cuts


@dataclass(frozen=True)
class Segments:
    """Batch i has `size` segments of a text, each with its warm-up; see `SEGMENT` and `WARM_UP`."""

    tokens: Tensor  # (N,)
    size: int

    @property
    def _starts(self) -> range:
        return range(0, len(self.tokens) - 1, SEGMENT)

    def __len__(self) -> int:
        return math.ceil(len(self._starts) / self.size)

    def __getitem__(self, index: int, /) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows = [self._row(start) for start in self._starts[index * self.size : (index + 1) * self.size]]
        return {name: torch.stack([row[name] for row in rows]) for name in ("input", "target")}

    def _row(self, start: int) -> Batch:
        """Return one segment, padded at its end to the common length."""
        first, last = max(0, start - WARM_UP), min(start + SEGMENT, len(self.tokens) - 1)
        tokens = self.tokens[first : last + 1].to(torch.int64)
        target = tokens[1:].clone()
        target[: start - first] = IGNORED
        pad = min(WARM_UP + SEGMENT, len(self.tokens) - 1) - len(target)
        return {"input": F.pad(tokens[:-1], (0, pad)), "target": F.pad(target, (0, pad), value=IGNORED)}


def segments(split: Columns, size: int) -> Segments:
    """Return the text in segments that can be computed in parallel; every token but the first is scored once.

    Segments do not depend on batch size and window, and neither do the metrics. The state at the start of a segment
    comes from the WARM_UP tokens before it, which approximates a single pass over the entire text.
    """
    return Segments(split["tokens"], size)


def beginning(split: Columns, most: int) -> Columns:
    """Return the first tokens of a text, at least two; evenly spread tokens would not be a text."""
    return Columns({"tokens": split["tokens"][: max(most, 2)]})


def step(model: nn.Module, batch: Batch, params: LanguageParams) -> StepOutput:
    """Return the summed cross-entropy of a batch's scored targets, in nats, and in training the final state.

    In training, a shorter window has a lower learning rate, as in AWD-LSTM.

    Args:
        model: A `LanguageModel`.
        batch: `input` and `target`, int64 (B, T), where targets of -1 are not scored; `state.…` is the final state
            of the window before.
        params: `train.window` and `train.label_smoothing` are used.
    """
    if not model.training:
        return _outcome(position_losses(model, batch, _window(model, batch)), batch["target"])
    logits, state = model(batch["input"], _state(batch))
    target, smoothing = batch["target"].flatten(), params.train.label_smoothing
    loss = F.cross_entropy(logits.float().flatten(0, 1), target, reduction="sum", label_smoothing=smoothing)
    carry = {f"{STATE}{name}": part.detach() for name, part in state.items()}
    return StepOutput(loss, target.numel(), rate=batch["input"].shape[1] / params.train.window, carry=carry)


def _state(batch: Batch) -> Batch | None:
    return {name.removeprefix(STATE): part for name, part in batch.items() if name.startswith(STATE)} or None


def _outcome(losses: Tensor, target: Tensor) -> StepOutput:
    scored = target != IGNORED
    # A selection of the scored losses would wait for a GPU, as their number is known there only.
    return StepOutput(losses.double().where(scored, 0).sum(), scored.sum())


def position_losses(model: nn.Module, batch: Batch, window: int) -> Tensor:
    """Compute the loss of each position in nats, window by window: float32 (B, T), NaN if it is not scored."""
    state: Batch | None = None
    parts = []
    edges = [*range(0, batch["input"].shape[1], window), batch["input"].shape[1]]
    for first, last in pairwise(edges):
        logits, state = model(batch["input"][:, first:last], state)
        target = batch["target"][:, first:last]
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none"
        ).view_as(target)
        parts.append(losses.masked_fill(target == IGNORED, torch.nan))
    return torch.cat(parts, 1)


def metrics(sums: Mapping[str, Tensor], count: int) -> dict[str, float]:
    """Return the mean loss in nats per token, and the perplexity."""
    loss = float(sums["loss"]) / count
    return {"loss": loss, "perplexity": exponential(loss)}


def predict(model: nn.Module, batch: Batch, params: LanguageParams) -> Batch:
    """Return `loss`, float32 (B, T): the loss of each position in nats, NaN if it is not scored."""
    return {"loss": position_losses(model, batch, _window(model, batch))}


def _window(model: nn.Module, batch: Batch) -> int:
    """Return the number of positions to compute at once, which does not affect results."""
    vocabulary = next(model.parameters()).shape[0]  # the embedding comes first
    return min(POSITIONS, max(1, LOGITS // (len(batch["input"]) * vocabulary)))
