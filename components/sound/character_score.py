"""What a recurrent language model of characters says of texts while prefix beam search finds them.

The shallow fusion of Gulcehre et al. 2015 (arXiv:1503.03535), with a network in place of n-grams.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from components.contracts import Batch
from components.text import tokens
from components.text.language_model import LanguageModel


@dataclass
class Characters:
    """The beginning of a text."""

    total: float
    """Its score without what its end adds."""
    last: int
    """The language model's id of its last character."""
    before: Batch | None
    """The network's state before that character, each tensor (1, ...); None if it is the first that is read."""
    in_word: bool
    """Whether the last character belongs to a word."""
    log_probs: NDArray[np.float64] | None = None
    """Of each next character, (V,), once `ready` has computed them."""
    after: Batch | None = None
    """The network's state after the last character, once `ready` has computed it."""


@dataclass(frozen=True)
class CharacterScore:
    """A language model of characters, read one character at a time."""

    model: LanguageModel
    """In evaluation mode."""
    tokenizer: Tokenizer
    """The language model's."""
    ids: Sequence[int]
    """For each token of the search, one character, the language model's id."""
    spaces: frozenset[int]
    """The tokens of the search that end a word."""
    weight: float
    """Weight of the model's log-probability."""
    bonus: float
    """Added for each word."""

    def start(self) -> Characters:
        """Return the state of an empty text: that of a line's beginning."""
        return Characters(0.0, tokens.start_id(self.tokenizer), None, in_word=False)

    @torch.inference_mode()
    def ready(self, states: Sequence[Characters]) -> None:
        """Read the last characters of all texts at once."""
        new = [each for each in states if each.log_probs is None]
        if not new:
            return
        before = [each.before for each in new if each.before is not None]
        known: Batch | None = {n: torch.cat([each[n] for each in before]) for n in before[0]} if before else None
        logits, after = self.model(torch.tensor([[each.last] for each in new]), known)
        rows: Tensor = logits[:, 0].double().log_softmax(1)
        for number, each in enumerate(new):
            each.log_probs = rows[number].numpy()
            each.after = {name: tensor[number : number + 1] for name, tensor in after.items()}

    def extended(self, state: Characters, token: int) -> Characters:
        """Return the state after one more token; a word counts when a space ends it."""
        own, ends = self.ids[token], token in self.spaces
        assert state.log_probs is not None, "`ready` comes before an extension"
        total = state.total + self.weight * float(state.log_probs[own]) + self.bonus * (ends and state.in_word)
        return Characters(total, own, state.after, in_word=not ends)

    def finished(self, state: Characters) -> float:
        """Return the score of a text that ends here, as a line does."""
        assert state.log_probs is not None, "`ready` comes before the end"
        end = self.weight * float(state.log_probs[tokens.start_id(self.tokenizer)])
        return state.total + end + self.bonus * state.in_word


def of_tokens(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[str], weight: float, bonus: float
) -> CharacterScore:
    """Return the scorer of a search whose tokens are characters.

    Args:
        model: The language model, in evaluation mode.
        tokenizer: Its tokenizer, of characters; those that it lacks are its `<unk>`.
        pieces: The text of each token of the search.
        weight: Weight of the model's log-probability.
        bonus: Added for each word, in nats.
    """
    ids = [(tokens.encode(tokenizer, piece) or [0])[0] for piece in pieces]
    spaces = frozenset(token for token, piece in enumerate(pieces) if piece.isspace())
    return CharacterScore(model, tokenizer, ids, spaces, weight, bonus)
