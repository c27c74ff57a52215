"""What a network writes after a text, token by token, and how likely it finds a text's own tokens."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from tokenizers import Tokenizer, decoders
from torch import Tensor, nn

from components.contracts import Batch
from components.language import tokens

POSITIONS, LOGITS = 512, 2**22
"""Computed at once, at most: positions of a text, and logits of these, 16 MB in float32."""


@dataclass(frozen=True)
class Continuation:
    """What was written: the text, its tokens as people read them, and the log-probability of each in nats."""

    text: str
    tokens: list[str]
    log_probabilities: list[float]


@torch.inference_mode()
def generate(  # noqa: PLR0913 - these are the field's own knobs, each named by its caller
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
    """Continue a text by tokens drawn from the network, never by `<unk>`.

    The network is a LanguageModel in evaluation mode; the answer depends on nothing but these arguments.

    Args:
        model: (1, T) token ids and a state to logits (1, T, V) and the next state.
        tokenizer: Of the network's vocabulary.
        prompt: Any text; an empty one starts as a new line does.
        temperature: Divides the logits; 0 takes the likeliest token, of equal ones the first.
        top_k: Draw from that many of the likeliest tokens; 0 is all.
        top_p: Draw from the fewest of these that have that share of their probability (nucleus sampling:
            Holtzman et al. 2020, arXiv:1904.09751); 1 is all.
        seed: Of the drawing, 0 to 2**64 - 1.
        stop: The text ends before this string's first occurrence; empty is none.
        max_length: Tokens, at most.

    Returns:
        The continuation without the prompt. Its log-probabilities are the network's own, whatever the
        temperature and the tokens that were drawn from. Bytes at its end that are no whole character are left off.
    """
    assert not model.training, "a network that is training drops parts of itself"
    generator = torch.Generator().manual_seed(seed)
    choose = partial(_choose, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
    unknown = tokens.unknown_id(tokenizer)
    ids: list[int] = []
    log_probabilities: list[float] = []
    logits, state = _read(model, tokens.encode(tokenizer, prompt) or [tokens.start_id(tokenizer)], None)
    while len(ids) < max_length and not _stopped(tokenizer, ids, stop):
        if ids:
            logits, state = _read(model, ids[-1:], state)
        known = logits.clone()
        if unknown is not None:
            known[unknown] = -torch.inf
        ids.append(choose(known))
        log_probabilities.append(logits.log_softmax(0)[ids[-1]].item())
    text, ids = _readable(tokenizer, ids, stop)
    return Continuation(text, tokens.pieces(tokenizer, ids), log_probabilities[: len(ids)])


@torch.inference_mode()
def score(model: nn.Module, tokenizer: Tokenizer, text: str) -> tuple[list[str], list[float]]:
    """Return a text's tokens from the second on, and the log-probability in nats of each after those before it.

    The network is a LanguageModel in evaluation mode. Memory grows with the text by its tokens alone.
    """
    assert not model.training, "a network that is training drops parts of itself"
    ids = tokens.encode(tokenizer, text)
    log_probabilities: list[float] = []
    for logits, _ in _logits(model, ids[:-1], None):
        start = len(log_probabilities) + 1
        targets = torch.tensor(ids[start : start + len(logits)])  # (t,)
        log_probabilities += logits.log_softmax(1).gather(1, targets[:, None])[:, 0].tolist()
    return tokens.pieces(tokenizer, ids[1:]), log_probabilities


State = Batch | None
"""Of a recurrent network after what it has read, each tensor (1, ...); None is before the first token."""


def _logits(model: nn.Module, ids: list[int], state: State) -> Iterator[tuple[Tensor, State]]:
    """Yield the logits (t, V) of some positions after the other, float64 on the CPU, and the state after them."""
    device = next(model.parameters()).device
    start, size = 0, 1  # the first piece tells how large the vocabulary is
    while start < len(ids):
        piece = torch.tensor([ids[start : start + size]], device=device)  # (1, t)
        logits, state = model(piece, state)
        yield logits[0].cpu().double(), state
        start += size
        size = min(POSITIONS, max(1, LOGITS // logits.shape[2]))


def _read(model: nn.Module, ids: list[int], state: State) -> tuple[Tensor, State]:
    """Return the logits (V,) after the last of at least one token, and the state."""
    for logits, after in _logits(model, ids, state):
        last, state = logits[-1], after
    return last, state


def _choose(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """Return a token drawn by its logits (V,)."""
    if temperature == 0:
        return int(logits.argmax())
    scaled = (logits - logits.max()) / temperature  # at most 0: a low temperature cannot overflow
    return int(torch.multinomial(_likeliest(scaled.softmax(0), top_k, top_p), 1, generator=generator))


def _likeliest(probabilities: Tensor, top_k: int, top_p: float) -> Tensor:
    """Return probabilities (V,), not normalised, of which those outside top-k, then top-p, are zero."""
    if top_k == 0 and top_p == 1:
        return probabilities
    falling, order = probabilities.sort(descending=True, stable=True)
    falling[top_k or len(falling) :] = 0
    if top_p < 1:
        before = falling.cumsum(0) - falling
        before[0] = -1  # the likeliest stays, also where rounding makes the share nothing
        falling[before >= top_p * falling.sum()] = 0
    return torch.zeros_like(probabilities).scatter(0, order, falling)


def _stopped(tokenizer: Tokenizer, ids: list[int], stop: str) -> bool:
    """Return whether the last token completes the stop string."""
    if not stop:
        return False
    # A token has a byte at least, and a character four bytes at most: this many tokens hold the string.
    tail = ids[-(4 * len(stop) + 1) :]
    return stop in tokens.decode(tokenizer, tail) and stop in _readable(tokenizer, ids, "")[0]


def _readable(tokenizer: Tokenizer, ids: list[int], stop: str) -> tuple[str, list[int]]:
    """Return the text of tokens up to the stop string, and those tokens that it takes to write it."""
    text = tokens.decode(tokenizer, ids)
    if isinstance(tokenizer.decoder, decoders.ByteLevel):
        text = text.rstrip("\ufffd")  # what stands for the bytes of a character that has not ended
    if stop:
        text = text.partition(stop)[0]
    needed = bisect_left(range(len(ids)), True, key=lambda n: tokens.decode(tokenizer, ids[:n]).startswith(text))
    return text, ids[:needed]
