"""How well a network foretells the untouched test text, where it is surprised, and how it writes."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from components import arrays, figures
from components.contracts import Batch, Outcomes, Prepared
from components.errors import PedigreeError
from components.files import write_json
from components.language import pictures, tokens
from components.language.generate import generate
from components.language.params import LanguageParams
from components.language.prepare import COUNTS, LanguageFacts, load_split

BLOCK, FEWEST_BLOCKS = 200, 20
"""Consecutive tokens that the bootstrap draws together; fewer where the text would have fewer blocks than that."""
FREQUENCIES = (0, 1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
"""Where the bands of occurrences in training begin."""
POSITIONS = (1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257)
"""Where the bands of places in a line begin."""
CHUNK = 2**20
"""Tokens, or lines, that are looked at together."""
LISTED, SHORTEST, SHOWN = 100, 5, 400
"""Surprising lines in the list, scored tokens that such a line has at least, and tokens of it that are shown."""
TEMPERATURES, PROMPT, WRITTEN = (0.5, 0.8, 1.0), 60, 400
"""Of the samples; characters of their prompt, at most, and of what is written, about."""


@dataclass(frozen=True)
class Scored:
    """The test text's tokens and their losses."""

    tokens: NDArray[Any]
    """Ids (N,), of an unsigned type."""
    loss: NDArray[np.float32]
    """Nats (N,); the first token's, which nothing foretells, is 0 and is left out of every mean."""
    starts: NDArray[np.int64]
    """The first token of each line (lines,); a token with a line's end in it belongs to the line it ends."""
    numbers: NDArray[np.int64]
    """Of the lines, from 1 on (lines,); byte pairs may end several lines at once."""
    pieces: Sequence[str]
    """Each token of the vocabulary as people read it."""


def evaluate(
    model: nn.Module, predictions: Batch, prepared: Prepared, out: Path, params: LanguageParams
) -> dict[str, float]:
    """Measure the losses on the test text; write into the folders plots/ and examples/ below `out`.

    plots/ gets frequency.png, position.png and surprise.png; examples/ gets lines.csv, surprising.json and
    samples.md. Memory holds some 25 bytes a token of the text, and no strings but the vocabulary's.

    Args:
        model: The network, on the CPU and in evaluation mode; writes the samples.
        predictions: `loss`, float32, NaN where a position is not scored; the others are in order those of the
            test text's tokens from the second on.
        prepared: The prepared data that the predictions were made on.
        out: The evaluation's folder.
        params: Those of evaluation give the seed of the samples.

    Raises:
        PedigreeError: a loss is not a finite number.
    """
    facts, note = LanguageFacts.model_validate(prepared.manifest.facts), prepared.manifest.note
    tokenizer = tokens.load(facts.tokenizer)
    ids = load_split(prepared.folder, "test")["tokens"].numpy()
    text = scored(ids, predictions["loss"], tokens.pieces(tokenizer, range(facts.vocabulary)))
    frequency = by_frequency(text, arrays.load(prepared.folder / COUNTS).numpy())
    drawn = {
        "frequency": pictures.bands(frequency, "Loss by frequency", "Occurrences of the token in training"),
        "position": pictures.bands(by_position(text), "Loss by position", "Place of the token in its line"),
        "surprise": pictures.passage(_shown(text, facts.kind), math.log(facts.vocabulary)),
    }
    for name, figure in drawn.items():
        figures.save(figure, out / "plots" / f"{name}.png", note)
    write_lines(text, tokenizer, out / "examples")
    samples = _samples(model, tokenizer, facts, ids, params.evaluate.seed)
    (out / "examples" / "samples.md").write_text(samples, encoding="utf-8", newline="\n")
    whole = measure(text, facts.characters["test"], tokens.unknown_id(tokenizer))
    return whole | {f"loss/seen {name}": loss for name, loss in zip(frequency.names, frequency.loss, strict=True)}


def scored(ids: NDArray[Any], losses: Tensor, pieces: Sequence[str]) -> Scored:
    """Put N >= 2 tokens, the finite ones of the losses, and the vocabulary as people read it together.

    Raises:
        PedigreeError: a token but the first has no finite loss.
    """
    finite = _finite(losses, len(ids))
    breaks = np.array([piece.count("\n") for piece in pieces])  # (vocabulary,)
    ends = [first + np.flatnonzero(breaks[ids[first : first + CHUNK]]) for first in range(0, len(ids), CHUNK)]
    last = np.concatenate(ends)
    last = last[last < len(ids) - 1]  # after the text's last token no line begins
    starts, numbers = np.append(0, last + 1), 1 + np.append(0, breaks[ids[last]].cumsum())
    return Scored(ids, np.concatenate([np.zeros(1, np.float32), finite]), starts, numbers, pieces)


def _finite(losses: Tensor, tokens_: int) -> NDArray[np.float32]:
    """Return the losses of all tokens but the first, (N - 1,)."""
    every = losses.numpy()
    finite: NDArray[np.float32] = every[np.isfinite(every)]
    broken = tokens_ - 1 - len(finite)
    assert broken >= 0, "losses of another text"
    if broken:
        raise PedigreeError(
            f"the network's losses for {broken:,} of {tokens_ - 1:,} test tokens are not finite numbers: "
            "the training diverged, so train again with a lower train.optimizer.lr"
        )
    return finite


def measure(text: Scored, characters: int, unknown: int | None) -> dict[str, float]:
    """Return the metrics of the text as a whole, by name.

    `loss` is the mean in nats a token, `perplexity` its exponential. `bits_per_character` shares the nats of all
    tokens among their characters, so that it compares tokenizers, as long as few tokens are `<unk>`, which hides
    characters.

    Args:
        text: Of N tokens, N - 1 of which are scored.
        characters: Of the text that the N tokens stand for.
        unknown: The id of `<unk>`, where there is one.
    """
    count, nats = len(text.tokens) - 1, float(text.loss.sum(dtype=np.float64))
    loss = nats / count
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "bits_per_character": nats / math.log(2) / max(characters - len(text.pieces[text.tokens[0]]), 1),
        "tokens": count,
        "unknown_share": 0.0 if unknown is None else float((text.tokens[1:] == unknown).mean()),
    }


def perplexity(loss: float) -> float:
    """Return the perplexity of a mean loss in nats."""
    return math.exp(min(loss, 700))  # beyond that no float is large enough


def outcomes(predictions: Batch, prepared: Prepared) -> Outcomes:
    """Return the nats of each block of tokens, for losses side by side are not independent.

    Drawing blocks is Carlstein's bootstrap (1986, Annals of Statistics 14).

    Raises:
        PedigreeError: a loss is not a finite number.
    """
    losses = _finite(predictions["loss"], prepared.manifest.splits["test"].samples)
    blocks = max(min(len(losses), FEWEST_BLOCKS), len(losses) // BLOCK)
    edges = np.arange(blocks + 1) * len(losses) // blocks
    names = [f"tokens {first + 2}-{last + 1}" for first, last in pairwise(edges.tolist())]  # counted from 1 on
    return Outcomes(names, np.add.reduceat(losses, edges[:-1], dtype=np.float64), np.diff(edges))


def by_frequency(text: Scored, counts: NDArray[np.int64]) -> pictures.Bands:
    """Group the scored tokens by how often training has them, `counts` (vocabulary,)."""
    return _banded(text, FREQUENCIES, lambda first, last: counts[text.tokens[first:last]])


def by_position(text: Scored) -> pictures.Bands:
    """Group the scored tokens by their place in their line, from 1 on."""

    def places(first: int, last: int) -> NDArray[np.int64]:
        tokens_ = np.arange(first, last)
        return tokens_ - text.starts[np.searchsorted(text.starts, tokens_, "right") - 1] + 1

    return _banded(text, POSITIONS, places)


def _banded(text: Scored, begins: Sequence[int], values: Callable[[int, int], NDArray[np.int64]]) -> pictures.Bands:
    """Group the scored tokens by their `values(first, last)` into the bands that begin at the rising `begins`."""
    count, nats = np.zeros(len(begins), np.int64), np.zeros(len(begins))
    for first in range(1, len(text.tokens), CHUNK):
        last = min(first + CHUNK, len(text.tokens))
        band = np.digitize(values(first, last), begins) - 1
        count += np.bincount(band, minlength=len(begins))
        nats += np.bincount(band, text.loss[first:last], len(begins))
    used = np.flatnonzero(count)
    names = [_band(begins, index) for index in used.tolist()]
    return pictures.Bands(names, count[used].tolist(), (nats[used] / count[used]).tolist())


def _band(begins: Sequence[int], index: int) -> str:
    """Return a name that MLflow takes in a metric's name."""
    if index + 1 == len(begins):
        return f"{begins[index]} or more"
    first, last = begins[index], begins[index + 1] - 1
    return str(first) if first == last else f"{first}-{last}"


def _shown(text: Scored, kind: str) -> Iterator[tuple[str, float]]:
    """Yield each token as it stands in the text, and its loss, NaN for the first one."""
    gap = " " if kind == "word" else ""
    for place, token in enumerate(text.tokens):
        piece = text.pieces[token]
        yield piece if piece == "\n" else piece + gap, float(text.loss[place]) if place else math.nan


def write_lines(text: Scored, tokenizer: Tokenizer, folder: Path) -> None:
    """Write lines.csv, the mean loss of every line, and surprising.json, the lines where it is highest."""
    count = np.diff(text.starts, append=len(text.tokens))
    count[0] -= 1  # the text's first token is not scored
    loss = np.add.reduceat(text.loss, text.starts, dtype=np.float64) / np.maximum(count, 1)
    with (folder / "lines.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["line", "tokens", "loss"])
        for first in range(0, len(count), CHUNK):
            part = slice(first, first + CHUNK)
            rows = zip(text.numbers[part].tolist(), count[part].tolist(), loss[part].round(6).tolist(), strict=True)
            table.writerows(row for row in rows if row[1])
    long = np.flatnonzero(count >= SHORTEST)
    worst = long[np.argsort(-loss[long], kind="stable")[:LISTED]].tolist()
    write_json(folder / "surprising.json", [_line(text, tokenizer, line, count, loss) for line in worst])


def _line(
    text: Scored, tokenizer: Tokenizer, line: int, count: NDArray[np.int64], loss: NDArray[np.float64]
) -> dict[str, Any]:
    first = int(text.starts[line])
    last = int(text.starts[line + 1]) if line + 1 < len(text.starts) else len(text.tokens)
    top = first + int(text.loss[first:last].argmax())
    shown = tokens.decode(tokenizer, text.tokens[first : min(last, first + SHOWN)].tolist())
    return {
        "line": int(text.numbers[line]),
        "text": f"{shown}…" if last - first > SHOWN else shown.partition("\n")[0],
        "tokens": int(count[line]),
        "loss": round(float(loss[line]), 6),
        "most_surprising": {"token": text.pieces[text.tokens[top]], "loss": round(float(text.loss[top]), 6)},
    }


def _samples(model: nn.Module, tokenizer: Tokenizer, facts: LanguageFacts, ids: NDArray[Any], seed: int) -> str:
    """Return Markdown: how the network goes on from the test text's first words."""
    prompt = _prompt(tokens.decode(tokenizer, ids[: 4 * PROMPT].tolist()))
    length = max(1, round(WRITTEN * facts.tokens["test"] / facts.characters["test"]))
    gap = " " if facts.kind == "word" else ""
    write = partial(generate, model, tokenizer, prompt, top_k=0, top_p=1, seed=seed, stop="", max_length=length)
    parts = [f"# Samples\n\nWhat the network writes after the test text's beginning, with seed {seed}:\n\n"]
    parts.append(f"{indent(prompt, '    ')}\n")
    for temperature in TEMPERATURES:
        written = write(temperature=temperature)
        body = indent(f"{prompt}{gap}{written.text}", "    ", lambda line: True)
        parts.append(f"\n## Temperature {temperature}\n\n{body}\n")
    return "".join(parts)


def _prompt(beginning: str) -> str:
    """Return the first line that is not blank, cut between words where it is too long."""
    line = beginning.strip().partition("\n")[0]
    if len(line) <= PROMPT:
        return line.rstrip()
    words, space, _ = line[: PROMPT + 1].rpartition(" ")
    return words.rstrip() if space else line[:PROMPT]
