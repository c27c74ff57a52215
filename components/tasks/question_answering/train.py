"""Loss, metrics and predictions of windows, and the threshold of saying that there is no answer."""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.contracts import Batch, Better, StepOutput
from components.tasks.question_answering import spans
from components.tasks.question_answering.model import Reader
from components.tasks.question_answering.params import QuestionParams
from components.tasks.question_answering.prepare import END, FIRST, QUESTION, START, TOKENS
from components.tasks.question_answering.windows import NONE

BETTER: Mapping[str, Better] = {"loss": "less", "exact": "more"}
"""`exact`: share of windows in which both ends are the most probable ones."""


def logits(model: nn.Module, batch: Batch) -> Tensor:
    """Return a batch's logits, (2, B, T)."""
    return cast(Tensor, model(batch[TOKENS].long(), batch[f"{TOKENS}_length"], batch[FIRST]))


def step(model: nn.Module, batch: Batch, params: QuestionParams) -> StepOutput:
    """Return the loss, the mean of both ends' cross-entropies, and how many windows have both ends right.

    Args:
        model: A `Reader`.
        batch: `token`, int32 (B, T), `token_length`, `first`, `start` and `end`, int64 (B,).
        params: Unused.
    """
    found = logits(model, batch)
    ends = torch.stack([batch[START], batch[END]])  # (2, B)
    loss = F.cross_entropy(found.flatten(0, 1), ends.flatten(), reduction="sum") / 2
    right = (found.detach().argmax(2) == ends).all(0)
    return StepOutput(loss, ends.shape[1], {"exact": right.double().sum()})


def predict(model: nn.Module, batch: Batch, params: QuestionParams) -> Batch:
    """Return each window's best answer (`spans.best`), where the right one is, and whose window it is.

    Of a network that may find no answer, its threshold, too.
    """
    found = spans.best(logits(model, batch), params.evaluate.longest_answer)
    if (last := _threshold(model)) is not None:
        found[spans.THRESHOLD] = last.expand(len(batch[START]))
    return found | {name: batch[name] for name in (START, END, QUESTION)}


def calibrate(model: nn.Module, predictions: Iterable[Batch], params: QuestionParams) -> None:
    """Choose the threshold of no answer, by F1 over the tokens of the validation questions' answers."""
    limit = _threshold(model)
    if limit is None:
        return
    windows = spans.joined(predictions)
    chosen = spans.choose(windows, windows[QUESTION])
    answerable = torch.zeros(len(chosen.window), dtype=torch.bool)
    order = windows[QUESTION].unique_consecutive(return_inverse=True)[1]
    answerable.scatter_reduce_(0, order, windows[START] > NONE, "amax")
    right = torch.stack([windows[START], windows[END]], 1)[chosen.window]
    overlap = _token_f1(torch.tensor(chosen.found), right)
    answered = torch.where(answerable, overlap, 0.0).numpy()
    limit.fill_(spans.threshold(chosen.null, answered, (~answerable).double().numpy()))


def _threshold(model: nn.Module) -> Tensor | None:
    """Return the threshold of a network, which a wrapper may have around it."""
    return next((part.threshold for part in model.modules() if isinstance(part, Reader)), None)


def _token_f1(found: Tensor, right: Tensor) -> Tensor:
    """Return F1 over the tokens of spans, float64 (Q,), given their first and last positions, (Q, 2) each."""
    shared = torch.minimum(found[:, 1], right[:, 1]) - torch.maximum(found[:, 0], right[:, 0]) + 1
    tokens = (found[:, 1] - found[:, 0] + 1) + (right[:, 1] - right[:, 0] + 1)
    return 2 * shared.clamp(min=0).double() / tokens
