"""Samples of one text, or of two, as token ids."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from tokenizers import Tokenizer, processors

from components.runtime.progress import Progress
from components.text import tokens, wordpiece
from components.text.params import SampleTokenizerParams

log = logging.getLogger("pedigree.prepare")
T = TypeVar("T")

SEPARATOR = "</s>"
"""The token between two texts, which no text becomes; wordpiece has its own."""
TOGETHER = 1000
"""Samples that are encoded at once."""


class Encoded(NamedTuple):
    """A sample's tokens."""

    ids: list[int]
    first: int
    """How many of them belong to its first text, with the special tokens around it."""
    cut: bool
    """Whether there were more."""


def learn(params: SampleTokenizerParams, texts: Iterable[str]) -> Tokenizer:
    """Return the tokenizer of a file, or one that is learnt from the training texts.

    Raises:
        PedigreeError: the file is no tokenizer of a BERT.
    """
    if params.name == "wordpiece":
        return wordpiece.load(Path(params.from_))
    blocks = ("\n".join(block) + "\n" for block in _batched(texts))
    tokenizer = tokens.train(params.learnt, blocks, [SEPARATOR], params.lowercase)
    separator = tokenizer.token_to_id(SEPARATOR)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0", pair=f"$A:0 {SEPARATOR}:0 $B:1", special_tokens=[(SEPARATOR, separator)]
    )
    return tokenizer


def encoded(tokenizer: Tokenizer, samples: Iterable[Sequence[str]], longest: int) -> Iterator[Encoded]:
    """Yield the tokens of samples of one or two texts; of two, the longer one is cut first.

    Args:
        tokenizer: The tokenizer; it is changed.
        samples: One or two texts each.
        longest: Most tokens of a sample.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    done, progress = 0, Progress(log)
    for batch in _batched(samples):
        inputs = [texts[0] if len(texts) == 1 else tuple(texts) for texts in batch]
        for each in tokenizer.encode_batch(inputs):
            first = sum(kind == 0 for kind in each.type_ids)
            yield Encoded(each.ids, first, bool(each.overflowing))
        done += len(batch)
        progress.say(f"{done:,} texts became tokens")


def _batched(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield lists of `TOGETHER` items; the last one may be shorter."""
    waiting = iter(items)
    while batch := list(islice(waiting, TOGETHER)):
        yield batch
