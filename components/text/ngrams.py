"""N-grams of words with backing off: read from ARPA files, or counted with interpolated Kneser-Ney smoothing.

The format is that of MIT Lincoln Laboratory's toolkit, as SRILM and KenLM write it (kheafield.com/code/kenlm);
the smoothing is that of Chen and Goodman 1999 (doi 10.1006/csla.1999.0128, section 3), with one discount.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from components.errors import PedigreeError
from components.text.lines import lines

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
LARGEST = 2**25
"""Largest file in bytes: the model becomes a part of the manifest."""
LN10 = math.log(10)
Words = tuple[str, ...]


class Entry(NamedTuple):
    """An n-gram's base-10 logarithms."""

    probability: float
    backoff: float


@dataclass(frozen=True)
class Ngrams:
    """A model of the next word."""

    order: int
    entries: Mapping[Words, Entry]

    def log_probability(self, history: Words, word: str) -> float:
        """Return the natural logarithm of the probability of a word after others.

        A word that the model lacks is `UNKNOWN`; if it lacks that, too, the result is -inf.

        Args:
            history: The words before it, of which only the last ones count; `START` at first.
            word: The word, or `END`.
        """
        if (word,) not in self.entries:
            word = UNKNOWN
            if (word,) not in self.entries:
                return -math.inf
        before = tuple(each if (each,) in self.entries else UNKNOWN for each in history)
        before = before[len(before) - min(len(before), self.order - 1) :]
        total = 0.0
        while (*before, word) not in self.entries:
            if before in self.entries:
                total += self.entries[before].backoff
            before = before[1:]
        return (total + self.entries[(*before, word)].probability) * LN10

    @property
    def words(self) -> frozenset[str]:
        """All words, without the marks of a sentence's ends and `UNKNOWN`."""
        return frozenset(words[0] for words in self.entries if len(words) == 1) - {START, END, UNKNOWN}

    @property
    def is_closed(self) -> bool:
        """Whether words that the model lacks are impossible."""
        return (UNKNOWN,) not in self.entries

    def arpa(self) -> str:
        """Return the content of an ARPA file."""
        by_order = defaultdict(list)
        for words, entry in sorted(self.entries.items()):
            by_order[len(words)].append((words, entry))
        parts = ["\\data\\", *(f"ngram {order}={len(by_order[order])}" for order in range(1, self.order + 1)), ""]
        for order in range(1, self.order + 1):
            parts.append(f"\\{order}-grams:")
            for words, entry in by_order[order]:
                backoff = f"\t{entry.backoff:.6f}" if entry.backoff else ""
                parts.append(f"{entry.probability:.6f}\t{' '.join(words)}{backoff}")
            parts.append("")
        return "\n".join([*parts, "\\end\\", ""])


def counted(sentences: Iterable[Sequence[str]], order: int) -> Ngrams:
    """Return the n-grams of sentences of words.

    Args:
        sentences: The sentences, without marks at their ends.
        order: The largest n.
    """
    counts: dict[int, Counter[Words]] = {n: Counter() for n in range(1, order + 1)}
    for words in sentences:
        marked = (START, *words, END)
        for n in range(1, order + 1):
            counts[n].update(marked[i : i + n] for i in range(len(marked) - n + 1))
    # Below the largest n, what counts is how many words an n-gram follows; one at the beginning follows none.
    kept = {order: counts[order]}
    for n in range(order - 1, 0, -1):
        kept[n] = Counter(words[1:] for words in counts[n + 1])
        kept[n].update({words: count for words, count in counts[n].items() if words[0] == START})
    del kept[1][(START,)]
    return Ngrams(order, _smoothed(kept, order))


def _smoothed(counts: Mapping[int, Counter[Words]], order: int) -> dict[Words, Entry]:
    vocabulary = {words[0] for words in counts[1]} | {UNKNOWN}
    lower: dict[Words, float] = {(): 1 / len(vocabulary)}
    probabilities: dict[Words, float] = {}
    backoffs: dict[Words, float] = {}
    for n in range(1, order + 1):
        own = counts[n]
        discount = _discount(own)
        totals: Counter[Words] = Counter()
        kinds: Counter[Words] = Counter()
        for words, count in own.items():
            totals[words[:-1]] += count
            kinds[words[:-1]] += 1
        shares = {before: discount * kinds[before] / total for before, total in totals.items()}
        backoffs |= {before: share for before, share in shares.items() if before}
        for words, count in own.items():
            rest = lower[()] if n == 1 else probabilities[words[1:]]
            before = words[:-1]
            probabilities[words] = max(count - discount, 0) / totals[before] + shares[before] * rest
        if n == 1:
            probabilities[(UNKNOWN,)] = shares[()] * lower[()]
    entries = {
        words: Entry(math.log10(value), math.log10(backoffs[words]) if words in backoffs else 0.0)
        for words, value in probabilities.items()
    }
    entries[(START,)] = Entry(-99.0, math.log10(backoffs[(START,)]) if (START,) in backoffs else 0.0)
    return entries


def _discount(counts: Counter[Words]) -> float:
    """Return what is subtracted from each count (Ney, Essen and Kneser 1994)."""
    once, twice = (sum(count == times for count in counts.values()) for times in (1, 2))
    return once / (once + 2 * twice) if once and twice else 0.5


def read(file: Path, order: int) -> str:
    """Return the content of an ARPA file.

    Raises:
        PedigreeError: it is missing, too large or no ARPA file, or has another order.
    """
    if not file.is_file():
        raise PedigreeError(f"{file} (prepare.ngrams.from) is not there: name an ARPA file, or leave it empty")
    if file.stat().st_size > LARGEST:
        raise PedigreeError(f"{file} has over {LARGEST / 2**20:g} MiB: prune it")
    text = "\n".join(line.text or "" for line in lines(file)) + "\n"
    found = parsed(text, str(file))
    if found.order != order:
        raise PedigreeError(f"{file} has n-grams of up to {found.order} words: set prepare.ngrams.order to that")
    return text


def parsed(text: str, name: str = "the language model") -> Ngrams:
    """Return the n-grams of an ARPA file.

    Args:
        text: The file's content.
        name: What errors call it.

    Raises:
        PedigreeError: it is no ARPA file, with the line.
    """
    numbered = enumerate(text.split("\n"), start=1)
    if not any(line.strip() == "\\data\\" for _, line in numbered):
        raise PedigreeError(f"{name} is no ARPA file: it has no line \\data\\")
    entries: dict[Words, Entry] = {}
    order = section = 0
    for number, line in _content(numbered):
        if line.startswith("\\") and line.endswith("-grams:"):
            section = int(line[1:-7]) if line[1:-7].isdigit() else 0
            order = max(order, section)
        elif section:
            entries.update([_entry(line, section, f"{name}:{number}")])
    if not entries or (END,) not in entries:
        raise PedigreeError(f"{name} is no ARPA file: it has no n-grams, or none for the end of a sentence, {END}")
    return Ngrams(order, entries)


def _content(numbered: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for number, line in numbered:
        if line.strip() == "\\end\\":
            return
        if line.strip():
            yield number, line.strip()


def _entry(line: str, order: int, at: str) -> tuple[Words, Entry]:
    parts = line.split()
    try:
        probability = float(parts[0])
        backoff = float(parts[order + 1]) if len(parts) > order + 1 else 0.0
    except ValueError:
        raise PedigreeError(f"{at}: not the logarithms and {order} words of an n-gram: correct the line") from None
    words = tuple(parts[1 : order + 1])
    if len(words) < order or len(parts) > order + 2 or math.isnan(probability + backoff):
        raise PedigreeError(f"{at}: not the logarithms and {order} words of an n-gram: correct the line")
    return words, Entry(probability, backoff)
