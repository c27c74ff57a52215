"""Windows of text for truncated back-propagation through time, their loss, and the state between them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Batch, Plan, StepOutput
from components.errors import PedigreeError
from components.language.params import LanguageParams, LanguageTrainParams

SEGMENT, WARM_UP = 4096, 1024
"""Tokens of the evaluated text that are scored side by side, and those before them that bring the state there."""
LOGITS = 2**26
"""Numbers that evaluation has in memory at once, 256 MB."""
POSITIONS = 256
"""Positions that evaluation computes at once, at most: more are not faster."""
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


def windows(split: Batch, params: LanguageParams, plan: Plan) -> Windows:
    """Cut the text into `batch_size` streams of one length, and these into windows; the rest is left out.

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
    return Windows(streams[plan.rank :: plan.world], _cuts(length - 1, train, plan.epoch))


def _cuts(targets: int, train: LanguageTrainParams, epoch: int) -> list[int]:
    """Return where the windows of an epoch begin, and where the last one ends."""
    if not train.random_window:
        return [*range(0, targets, train.window), targets]
    # AWD-LSTM, section 5: around the window, now and then around half of it; github.com/salesforce/awd-lstm-lm.
    random = np.random.default_rng((train.seed, epoch))
    cuts = [0]
    while cuts[-1] < targets:
        base = train.window if random.random() < 0.95 else train.window / 2
        cuts.append(min(cuts[-1] + max(5, int(random.normal(base, 5))), targets))
    return cuts


@dataclass(frozen=True)
class Segments:
    """Batch i holds `size` segments of a text, each with what leads up to it; see `SEGMENT` and `WARM_UP`."""

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
        """Return one segment, padded at the end to the length that all segments have."""
        first, last = max(0, start - WARM_UP), min(start + SEGMENT, len(self.tokens) - 1)
        tokens = self.tokens[first : last + 1].to(torch.int64)
        target = tokens[1:].clone()
        target[: start - first] = IGNORED
        pad = min(WARM_UP + SEGMENT, len(self.tokens) - 1) - len(target)
        return {"input": F.pad(tokens[:-1], (0, pad)), "target": F.pad(target, (0, pad), value=IGNORED)}


def segments(split: Batch, size: int) -> Segments:
    """Return the text in segments that can be computed side by side, every token but the first scored once.

    The segments are the same whatever the batch and the window, and so is what is measured on them. Each is
    led up to by the tokens before it, so that its state is, but for what is more than WARM_UP tokens ago, that
    of one pass over the whole text.
    """
    return Segments(split["tokens"], size)


def augment(batch: Batch, params: LanguageParams) -> Batch:
    """Leave the text as it is: dropout is in the network."""
    return batch


def step(model: nn.Module, batch: Batch, params: LanguageParams) -> StepOutput:
    """Return the mean cross-entropy of a batch's scored targets, in nats; in training, also the state after it.

    In training a shorter window is learnt from at a lower rate, as AWD-LSTM does.

    Args:
        model: `LanguageModel`.
        batch: `input` and `target`, int64 (B, T), targets of -1 not scored; of the window before, `state.…`.
        params: `train.window` and `train.label_smoothing` are used.
    """
    if not model.training:
        return _outcome(position_losses(model, batch, _window(model, batch)), batch["target"])
    logits, state = model(batch["input"], _state(batch))
    target, smoothing = batch["target"].flatten(), params.train.label_smoothing
    loss = F.cross_entropy(logits.float().flatten(0, 1), target, label_smoothing=smoothing)
    count = target.numel()
    sums = {"loss": loss.detach().double() * count}
    carry = {f"{STATE}{name}": part.detach() for name, part in state.items()}
    return StepOutput(loss, sums, count, rate=batch["input"].shape[1] / params.train.window, carry=carry)


def _state(batch: Batch) -> Batch | None:
    return {name.removeprefix(STATE): part for name, part in batch.items() if name.startswith(STATE)} or None


def _outcome(losses: Tensor, target: Tensor) -> StepOutput:
    scored = losses[target != IGNORED].double()
    return StepOutput(scored.mean(), {"loss": scored.sum()}, len(scored))


def position_losses(model: nn.Module, batch: Batch, window: int) -> Tensor:
    """Return each position's loss in nats, float32 (B, T), NaN where it is not scored, a window at a time."""
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


def metrics(sums: Mapping[str, float], count: int) -> dict[str, float]:
    """Return the mean loss, in nats a token, and the perplexity."""
    loss = sums["loss"] / count
    return {"loss": loss, "perplexity": float(np.exp(min(loss, 700)))}


def predict(model: nn.Module, batch: Batch) -> Batch:
    """Return `loss`, float32 (B, T) on the CPU: nats of each position, NaN where it is not scored."""
    return {"loss": position_losses(model, batch, _window(model, batch)).cpu()}


def _window(model: nn.Module, batch: Batch) -> int:
    """Return how many positions to compute at once; results do not depend on it."""
    vocabulary = next(model.parameters()).shape[0]  # the embedding comes first
    return min(POSITIONS, max(1, LOGITS // (len(batch["input"]) * vocabulary)))
