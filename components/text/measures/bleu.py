"""BLEU from statistics of each sentence, which add up: equal to sacrebleu's corpus BLEU with one reference.

Papineni et al. 2002 (aclanthology.org/P02-1040); what is counted follows Post 2018 (arXiv:1804.08771) and sacrebleu
2.6 (github.com/mjpost/sacrebleu). Libraries give a corpus its score; an interval, or the gate, needs the sentences'
statistics.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ORDER = 4
"""Longest n-gram in tokens."""
COLUMNS = 2 + 2 * ORDER
"""Tokens of the translation and of the reference; matching n-grams by order; the translation's n-grams by order."""
_MARKS = re.compile(f"([{re.escape(''.join(set(string.punctuation) - set(',-.') - {chr(39)}))}])")
_PASSES = (
    (_MARKS, r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""What mteval-v13a.pl separates, in its order: marks, and points, commas and hyphens beside certain characters."""
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}


@dataclass(frozen=True)
class Convention:
    """What a token is: scores of different conventions cannot be compared."""

    case: Literal["mixed", "lc"]
    """lc compares in lower case."""
    tokenizer: Literal["13a", "none"]
    """13a is that of WMT's mteval-v13a.pl; none splits at white space, for texts that are tokenised already."""

    @property
    def signature(self) -> str:
        """The signature in sacrebleu's format, without a version."""
        return f"nrefs:1|case:{self.case}|eff:no|tok:{self.tokenizer}|smooth:exp"

    def tokens(self, text: str) -> list[str]:
        """Divide a text."""
        text = text.rstrip()
        if self.case == "lc":
            text = text.lower()
        return (_as_13a(text) if self.tokenizer == "13a" else text).split()


def _as_13a(text: str) -> str:
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, mark in _ENTITIES.items():
        text = text.replace(entity, mark)
    text = f" {text} "
    for pattern, separated in _PASSES:
        text = pattern.sub(separated, text)
    return text


def statistics(translation: str, reference: str, convention: Convention) -> NDArray[np.float64]:
    """Return what BLEU is computed from, (COLUMNS,); that of a corpus is the sum."""
    own, other = convention.tokens(translation), convention.tokens(reference)
    matches, counts = [], []
    for order in range(1, ORDER + 1):
        found = _ngrams(own, order)
        matches.append((found & _ngrams(other, order)).total())
        counts.append(found.total())
    return np.array([len(own), len(other), *matches, *counts], np.float64)


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[first : first + order]) for first in range(len(tokens) - order + 1))


def score(sums: NDArray[np.float64]) -> float:
    """Return BLEU, 0 to 100, of summed statistics (COLUMNS,), with exponential smoothing.

    An order without a match counts as half a match, the next one as a quarter, and so on (Chen and Cherry 2014,
    aclanthology.org/W14-3346, method 3).
    """
    length, reference = sums[:2]
    matches, counts = sums[2 : 2 + ORDER], sums[2 + ORDER :]
    if not matches.any() or not counts.all():
        return 0.0
    logs, halved = 0.0, 1.0
    for match, count in zip(matches, counts, strict=True):
        if not match:
            halved *= 2
        logs += math.log((match or 1 / halved) / count)
    brevity = min(0.0, 1 - reference / length)
    return 100 * math.exp(brevity + logs / ORDER)
