"""The words that decide on an output, by integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365).

A token's vector is scaled from zero to what it is, and the gradients of the output on this path add up to what the
token contributes. The contributions of all tokens add up to the difference between the outputs at both ends.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from tokenizers import Encoding
from torch import Tensor, nn

STEPS = 32
"""Points on the path."""


class Word(NamedTuple):
    """A word of a text, as it stands between spaces."""

    text: str
    weight: float
    """What its tokens contribute to the output."""


def of_tokens(
    embedding: nn.Embedding, output: Callable[[Tensor], Tensor], token: Tensor, steps: int = STEPS
) -> Tensor:
    """Return what each token contributes to an output, (T,).

    Args:
        embedding: The network's vectors of tokens.
        output: Maps tokens, int64 (B, T), by the network to an output of each sample, (B,).
        token: The tokens of a text, int64 (T,).
        steps: Points on the path; more of them make the sum more exact.
    """
    scales = (torch.arange(steps) + 0.5) / steps
    scaled: list[Tensor] = []

    def scale(module: nn.Module, inputs: object, vectors: Tensor) -> Tensor:
        scaled.append((scales[:, None, None] * vectors).detach().requires_grad_())  # (steps, T, D)
        return scaled[0]

    hook = embedding.register_forward_hook(scale)
    try:
        with torch.enable_grad():
            total = output(token.expand(steps, -1)).sum()
            (gradient,) = torch.autograd.grad(total, scaled)
    finally:
        hook.remove()
    return (embedding.weight[token].detach() * gradient.mean(0)).sum(1)


def of_words(encoded: Encoding, texts: Sequence[str], weights: Sequence[float]) -> list[list[Word]]:
    """Return the words of a sample's texts with the sums of their tokens' weights.

    Args:
        encoded: What the tokenizer made of the texts.
        texts: One text or two.
        weights: One for each token of the sample; those of special tokens belong to no word.
    """
    found = []
    for number, text in enumerate(texts):
        spans = [match.span() for match in re.finditer(r"\S+", text)]
        sums = [0.0] * len(spans)
        for part, (_, end), weight in zip(encoded.sequence_ids, encoded.offsets, weights, strict=True):
            # The end, as a token may begin with the space before it.
            index = next((place for place, (first, last) in enumerate(spans) if first < end <= last), None)
            if part == number and index is not None:
                sums[index] += weight
        found.append([Word(text[first:last], total) for (first, last), total in zip(spans, sums, strict=True)])
    return found
