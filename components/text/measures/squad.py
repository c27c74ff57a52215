"""Exact match and F1 of answers, by the rules of SQuAD's official scripts.

v1.1: Rajpurkar et al. 2016 (arXiv:1606.05250); v2.0, with questions that have no answer: Rajpurkar et al. 2018
(arXiv:1806.03822), evaluate-v2.0.py at rajpurkar.github.io/SQuAD-explorer.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Return a text in small letters without ASCII punctuation and English articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_MARKS)).split())


def exact(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the normalised answer equals one of the references, and 0 otherwise; see `f1`."""
    return max(float(normalised(answer) == normalised(each)) for each in references or ("",))


def f1(answer: str, references: Sequence[str]) -> float:
    """Return the largest F1 of the answer's words with those of a reference, 0 to 1.

    Where the answer or the reference has no words, it is 1 if neither has any, and 0 otherwise.

    Args:
        answer: The answer; empty for none.
        references: The right ones; without any, the question has no answer.
    """
    return max(_f1(normalised(answer).split(), normalised(each).split()) for each in references or ("",))


def _f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    same = sum((Counter(answer) & Counter(reference)).values())
    if not same:
        return 0.0
    precision, recall = same / len(answer), same / len(reference)
    return 2 * precision * recall / (precision + recall)
