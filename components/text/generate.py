"""Generation of text token by token, and the log-probabilities of a text's own tokens."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from tokenizers import Tokenizer, decoders
from torch import Tensor, nn

from components.contracts import Batch
from components.text import tokens

POSITIONS, LOGITS = 512, 2**22
"""Maximum number of positions computed at once, and of their logits: 16 MB in float32."""


@dataclass(frozen=True)
class Continuation:
    """A generated text, its tokens as readable strings, and the log-probability of each token in nats."""

    text: str
    tokens: list[str]
    log_probabilities: list[float]
    gap: str
    """What separates it from its prompt: a space between words, or nothing."""


@torch.inference_mode()
def generate(  # noqa: PLR0913 - the usual sampling parameters, all passed by keyword
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    stop: str,
    max_length: int,
) -> Continuation:
    """Continue a text with tokens sampled from the network, never with `<unk>`.

    The network is a LanguageModel in evaluation mode; the result depends only on the arguments.

    Args:
        model: Maps token ids (1, T) and a state to logits (1, T, V) and the next state.
        tokenizer: The tokenizer of the network's vocabulary.
        prompt: Any text; an empty one is continued as the start of a new line.
        temperature: Divides the logits; 0 takes the likeliest token, the first of several equal ones.
        top_k: Sample from this many of the likeliest tokens; 0 means all.
        top_p: Sample from the smallest set of the likeliest of these tokens that has this share of their
            probability (nucleus sampling: Holtzman et al. 2020, arXiv:1904.09751); 1 means all.
        seed: Seed of the sampling, 0 to 2**64 - 1.
        stop: The text ends before the first occurrence of this string; an empty one has no effect.
        max_length: Maximum number of tokens.

    Returns:
        The continuation without the prompt and without an incomplete character at its end. Its log-probabilities
        are those of the network, independent of temperature, top-k and top-p.
    """
    assert not model.training, "dropout is active in training mode"
    generator = torch.Generator().manual_seed(seed)
    choose = partial(_choose, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
    unknown = tokens.unknown_id(tokenizer)
    ids: list[int] = []
    log_probabilities: list[float] = []
    read = tokens.encode(tokenizer, prompt) or [tokens.start_id(tokenizer)]
    logits, state = _read(model, read, None)
    while len(ids) < max_length and not _stopped(tokenizer, ids, stop):
        if ids:
            logits, state = _read(model, ids[-1:], state)
        known = logits.clone()
        if unknown is not None:
            known[unknown] = -torch.inf
        ids.append(choose(known))
        log_probabilities.append(logits.log_softmax(0)[ids[-1]].item())
    text, ids = _readable(tokenizer, ids, stop)
    gap = tokens.gap(tokenizer, read[-1], ids[0]) if ids else ""
    return Continuation(text, tokens.pieces(tokenizer, ids), log_probabilities[: len(ids)], gap)


@torch.inference_mode()
def score(model: nn.Module, tokenizer: Tokenizer, text: str) -> tuple[list[str], list[float]]:
    """Return a text's tokens, and the log-probability in nats of each given those before it.

    The first token has the probability that a line begins with it. The others have those of evaluation, in which
    the network reads a text from its first token on. The network is a LanguageModel in evaluation mode. Memory
    grows with the number of tokens only.
    """
    assert not model.training, "dropout is active in training mode"
    ids = tokens.encode(tokenizer, text)
    log_probabilities: list[float] = []
    if ids:
        logits, _ = _read(model, [tokens.start_id(tokenizer)], None)
        log_probabilities.append(logits.log_softmax(0)[ids[0]].item())
    for logits, _ in _logits(model, ids[:-1], None):
        start = len(log_probabilities)
        targets = torch.tensor(ids[start : start + len(logits)])  # (t,)
        log_probabilities += logits.log_softmax(1).gather(1, targets[:, None])[:, 0].tolist()
    return tokens.pieces(tokenizer, ids), log_probabilities


State = Batch | None
"""State of a recurrent network, each tensor (1, ...); None before the first token."""


def _logits(model: nn.Module, ids: list[int], state: State) -> Iterator[tuple[Tensor, State]]:
    """Yield the logits (t, V) of successive pieces of the text, float64 on the CPU, and the state after each."""
    device = next(model.parameters()).device
    start, size = 0, 1  # the first piece reveals the size of the vocabulary
    while start < len(ids):
        piece = torch.tensor([ids[start : start + size]], device=device)  # (1, t)
        logits, state = model(piece, state)
        yield logits[0].cpu().double(), state
        start += size
        size = min(POSITIONS, max(1, LOGITS // logits.shape[2]))


def _read(model: nn.Module, ids: list[int], state: State) -> tuple[Tensor, State]:
    """Return the logits (V,) after the last of one or more tokens, and the state."""
    for logits, after in _logits(model, ids, state):
        last, state = logits[-1], after
    return last, state


def _choose(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """Sample a token from logits (V,)."""
    if temperature == 0:
        return int(logits.argmax())
    scaled = (logits - logits.max()) / temperature  # at most 0: a low temperature cannot overflow
    return int(torch.multinomial(_likeliest(scaled.softmax(0), top_k, top_p), 1, generator=generator))


def _likeliest(probabilities: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set probabilities (V,) outside top-k, then top-p, to zero; the result is not normalised."""
    if top_k == 0 and top_p == 1:
        return probabilities
    falling, order = probabilities.sort(descending=True, stable=True)
    falling[top_k or len(falling) :] = 0
    if top_p < 1:
        before = falling.cumsum(0) - falling
        before[0] = -1  # keeps the likeliest token even if the share rounds to zero
        falling[before >= top_p * falling.sum()] = 0
    return torch.zeros_like(probabilities).scatter(0, order, falling)


def _stopped(tokenizer: Tokenizer, ids: list[int], stop: str) -> bool:
    """Return whether the last token completes the stop string."""
    if not stop:
        return False
    # A token has at least one byte and a character at most four, so the string is within this many tokens.
    tail = ids[-(4 * len(stop) + 1) :]
    return stop in tokens.decode(tokenizer, tail) and stop in _readable(tokenizer, ids, "")[0]


def _readable(tokenizer: Tokenizer, ids: list[int], stop: str) -> tuple[str, list[int]]:
    """Return the text of tokens up to the stop string, and the tokens needed to write it."""
    text = tokens.decode(tokenizer, ids)
    if isinstance(tokenizer.decoder, decoders.ByteLevel):
        text = text.rstrip("\ufffd")  # replacements for the bytes of an incomplete character
    if stop:
        text = text.partition(stop)[0]
    needed = bisect_left(range(len(ids)), True, key=lambda n: tokens.decode(tokenizer, ids[:n]).startswith(text))
    return text, ids[:needed]
