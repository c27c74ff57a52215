"""Beam search: the likeliest texts that a decoder writes token by token.

A decoder is a function `step`, as `EncoderDecoder.step`; beam search knows nothing else of the network. What the
decoder keeps of its past, such as cached keys and values, are named tensors, (B, K, ...): one entry for each of K
hypotheses of each of B samples, which `follow` rearranges when hypotheses continue or end. A search of another
kind, such as that of CTC's prefixes, can use `extensions` and `follow`, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from components.contracts import Batch

Step = Callable[[Tensor, Batch, Batch], tuple[Tensor, Batch]]
"""Maps the last token of each hypothesis, int64 (B, K), what the samples are, tensors (B, ...), and the state, none
at first and then tensors (B, K, ...), to logits (B, K, vocabulary) and the state after."""


@dataclass(frozen=True)
class Hypothesis:
    """A text that was found."""

    tokens: list[int]
    """Without the token that ends it."""
    log_probability: float
    """Sum over its tokens and the end, in nats."""
    score: float
    """The log-probability divided by a power of the number of tokens, with the end: more is better."""


@dataclass(frozen=True)
class Width:
    """How far to search."""

    beam: int
    """K, the number of hypotheses of a sample; 1 is a greedy search."""
    length_penalty: float
    """Power of the length by which log-probabilities are divided: 0 favours short texts, 1 compares means."""


@torch.inference_mode()
def search(
    step: Step, memory: Batch, most: Sequence[int], start: int, end: int, width: Width
) -> list[list[Hypothesis]]:
    """Return the best hypotheses of each sample, at most `width.beam`, the best first.

    The search for a sample is over as soon as as many hypotheses have ended as are followed, as in fairseq (Ott et
    al. 2019, arXiv:1904.01038). The result does not depend on the other samples of the batch, except for rounding.

    Args:
        step: The decoder.
        memory: What each sample is, tensors (B, ...).
        most: The largest number of tokens of each sample's hypotheses, without the end, B.
        start: The token before the first one; it is never written.
        end: The token that ends a hypothesis.
        width: How far to search.
    """
    device, beam = next(iter(memory.values())).device, width.beam
    found: list[list[Hypothesis]] = [[] for _ in most]
    # Only the network and the choice of extensions are on the device: a GPU is waited for once a step.
    samples, limits = torch.arange(len(most)), torch.tensor(most)
    last = torch.full((len(most), beam), start)
    written = last.new_empty(len(most), beam, 0)
    totals = torch.full((len(most), beam), -torch.inf)
    totals[:, 0] = 0  # all hypotheses are empty still: one of them is enough
    state: Batch = {}
    while len(samples):
        logits, state = step(last.to(device), memory, state)
        log_probabilities = logits.float().log_softmax(-1)
        log_probabilities[:, :, start] = -torch.inf
        full = limits <= written.shape[2]
        if full.any():
            _end_at(log_probabilities, full.to(device), end)
        best = extensions(totals.to(device), log_probabilities, 2 * beam).cpu()  # at most half of them end
        _collect(best, written, samples.tolist(), end, width, found)
        ended = best.tokens == end
        going = ended.long().argsort(dim=1, stable=True)[:, :beam]
        totals = best.totals.where(~ended, -torch.inf).gather(1, going)
        last, parents = best.tokens.gather(1, going), best.parents.gather(1, going)
        open_ = torch.tensor([len(found[index]) < beam for index in samples.tolist()])
        rows = (open_ & (totals > -torch.inf).any(1)).nonzero()[:, 0]
        if len(rows) < len(samples):
            samples, limits, totals, last = (each[rows] for each in (samples, limits, totals, last))
            memory = {name: tensor[rows.to(device)] for name, tensor in memory.items()}
        state = follow(state, rows.to(device), parents[rows].to(device))
        written = torch.cat([written[rows[:, None], parents[rows]], last[:, :, None]], 2)
    return [sorted(each, key=lambda one: -one.score) for each in found]


def _end_at(log_probabilities: Tensor, full: Tensor, end: int) -> None:
    """Let the hypotheses of samples that may not be longer only end; `full` is bool (B,)."""
    ends = log_probabilities[:, :, end].clone()
    log_probabilities.masked_fill_(full[:, None, None], -torch.inf)
    log_probabilities[:, :, end] = ends


@dataclass(frozen=True)
class Extensions:
    """The best extensions of each sample's hypotheses by one token, the best first; all (B, N)."""

    totals: Tensor
    """Log-probabilities of the extended hypotheses, float32; -inf where there are fewer than N."""
    parents: Tensor
    """The extended hypothesis, int64."""
    tokens: Tensor
    """The token that extends it, int64."""

    def cpu(self) -> "Extensions":
        """Return them on the CPU."""
        return Extensions(self.totals.cpu(), self.parents.cpu(), self.tokens.cpu())


def extensions(totals: Tensor, log_probabilities: Tensor, most: int) -> Extensions:
    """Return the best extensions by one token.

    Args:
        totals: The log-probability of each hypothesis, (B, K), -inf if it is none.
        log_probabilities: Those of the next tokens, (B, K, vocabulary).
        most: N, at most; fewer if there are no more.
    """
    beams, vocabulary = log_probabilities.shape[1:]
    # The best of a hypothesis first: the best of all hypotheses are among them, and sorting fewer is faster.
    own, tokens = log_probabilities.topk(min(most, vocabulary), 2)
    values, index = (totals[:, :, None] + own).flatten(1).topk(min(most, beams * own.shape[2]), 1)
    return Extensions(values, index // own.shape[2], tokens.flatten(1).gather(1, index))


def follow(state: Batch, samples: Tensor, parents: Tensor) -> Batch:
    """Return a decoder's state, tensors (B, K, ...), for the hypotheses that continue.

    Args:
        state: The state after the last step.
        samples: Which samples continue, (b,).
        parents: Which of the K hypotheses each new one extends, (b, k).
    """
    chosen: Batch = {}
    for name, tensor in state.items():
        rows = samples[:, None] * tensor.shape[1] + parents
        # index_select copies whole rows, and is three times as fast as indexing with two tensors on a CPU.
        chosen[name] = tensor.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, *tensor.shape[2:])
    return chosen


def _collect(
    best: Extensions,
    written: Tensor,
    samples: Sequence[int],
    end: int,
    width: Width,
    found: list[list[Hypothesis]],
) -> None:
    """Add the hypotheses that end to those found; only the best extensions count, as in a search without ends."""
    ends = (best.tokens == end) & (best.totals > -torch.inf)
    for row, rank in ends[:, : width.beam].nonzero().tolist():
        own = found[samples[row]]
        if len(own) < width.beam:
            tokens = written[row, best.parents[row, rank]].tolist()
            total = float(best.totals[row, rank])
            own.append(Hypothesis(tokens, total, total / (len(tokens) + 1) ** width.length_penalty))
