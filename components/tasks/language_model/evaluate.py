"""Evaluation on the test text: perplexity, losses by frequency and position, surprising lines, and samples."""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from components import figures, scores
from components.contracts import Batch, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import arrays
from components.errors import PedigreeError
from components.runtime.files import write_json
from components.tasks.language_model import pictures
from components.tasks.language_model.params import LanguageParams
from components.tasks.language_model.prepare import COUNTS, LanguageFacts, load_split
from components.tasks.language_model.serve import passages
from components.text import alignment, tokens
from components.text.generate import generate

BLOCK, FEWEST_BLOCKS = 200, 20
"""Consecutive tokens in a block, and the minimum number of blocks, for which blocks may be shorter."""
FREQUENCIES = (0, 1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
"""Lower bounds of the bands of occurrences in training."""
POSITIONS = (1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257)
"""Lower bounds of the bands of positions in a line."""
CHUNK = 2**20
"""Tokens or lines processed at once."""
LISTED, SHORTEST, SHOWN = 100, 5, 400
"""Number of surprising lines listed, their minimum number of scored tokens, and the maximum number shown."""
TEMPERATURES, PROMPT, WRITTEN = (0.5, 0.8, 1.0), 60, 400
"""Temperatures of the samples, maximum characters of their prompt, and approximate characters generated."""


@dataclass(frozen=True)
class Scored:
    """The test text's tokens and their losses."""

    tokens: NDArray[Any]
    """Token ids (N,), of an unsigned type."""
    loss: NDArray[np.float32]
    """Loss in nats (N,); that of the first token, which is not predicted, is 0 and excluded from all means."""
    starts: NDArray[np.int64]
    """Index of each line's first token (lines,); a token that contains a line's end belongs to that line."""
    numbers: NDArray[np.int64]
    """Line numbers (lines,), counted from 1; a byte-pair token may end several lines."""
    pieces: Sequence[str]
    """Each token of the vocabulary as a readable string."""


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: LanguageParams
) -> dict[str, float]:
    """Compute the metrics of the losses on the test text; write into plots/ and examples/ below `out`.

    plots/ gets frequency.png, position.png and surprise.png; examples/ gets lines.csv, surprising.json and
    samples.md. Memory holds about 25 bytes per token of the text, and the strings of the vocabulary.

    Args:
        model: The network, on the CPU and in evaluation mode, for the samples.
        predictions: Batches of `loss`, float32, NaN at positions that are not scored; all other values belong to
            the test text's tokens from the second on, in order.
        prepared: The prepared data of the predictions.
        out: The evaluation's folder.
        params: `evaluate.seed` seeds the samples.

    Raises:
        PedigreeError: a loss is not a finite number.
    """
    facts, note = LanguageFacts.model_validate(prepared.manifest.facts), prepared.manifest.note
    tokenizer = tokens.load(facts.tokenizer)
    ids = load_split(prepared.folder, "test")["tokens"].numpy()
    text = scored(ids, predictions, tokens.pieces(tokenizer, range(facts.vocabulary)))
    frequency = by_frequency(text, arrays.load(prepared.folder / COUNTS).numpy())
    drawn = {
        "frequency": pictures.bands(frequency, "Loss by frequency", "Occurrences of the token in training"),
        "position": pictures.bands(by_position(text), "Loss by position", "Place of the token in its line"),
        "surprise": pictures.passage(_shown(text, tokenizer), math.log(facts.vocabulary)),
    }
    for name, figure in drawn.items():
        figures.save(figure, out / "plots" / f"{name}.png", note)
    write_lines(text, tokenizer, out / "examples")
    samples = _samples(model, tokenizer, facts, ids, params.evaluate.seed)
    (out / "examples" / "samples.md").write_text(samples, encoding="utf-8", newline="\n")
    metrics = measure(text, facts.characters["test"], tokens.unknown_id(tokenizer))
    return metrics | {f"loss/seen {name}": loss for name, loss in zip(frequency.names, frequency.loss, strict=True)}


def scored(ids: NDArray[Any], predictions: Iterable[Batch], pieces: Sequence[str]) -> Scored:
    """Combine N >= 2 tokens, their losses, and the vocabulary's readable strings.

    Raises:
        PedigreeError: a token other than the first has no finite loss.
    """
    finite = _finite(predictions, len(ids))
    breaks = np.array([piece.count("\n") for piece in pieces])  # (vocabulary,)
    ends = [first + np.flatnonzero(breaks[ids[first : first + CHUNK]]) for first in range(0, len(ids), CHUNK)]
    last = np.concatenate(ends)
    last = last[last < len(ids) - 1]  # no line begins after the last token
    starts, numbers = np.append(0, last + 1), 1 + np.append(0, breaks[ids[last]].cumsum())
    return Scored(ids, np.concatenate([np.zeros(1, np.float32), finite]), starts, numbers, pieces)


def _finite(predictions: Iterable[Batch], tokens_: int) -> NDArray[np.float32]:
    """Return the losses of all tokens except the first, (N - 1,)."""
    finite = np.concatenate(
        [losses[np.isfinite(losses)] for losses in (each["loss"].numpy() for each in predictions)]
    )
    missing = tokens_ - 1 - len(finite)
    assert missing >= 0, "losses of another text"
    if missing:
        raise PedigreeError(
            f"the network's losses for {missing:,} of {tokens_ - 1:,} test tokens are not finite numbers: "
            "the training diverged, so train again with a lower train.optimizer.lr"
        )
    return finite


def measure(text: Scored, characters: int, unknown: int | None) -> dict[str, float]:
    """Return the metrics of the entire text by name.

    `loss` is the mean in nats per token, `perplexity` its exponential. `bits_per_character` is comparable between
    tokenizers as long as few tokens are `<unk>`, which hides characters.

    Args:
        text: A text of N tokens, N - 1 of which are scored.
        characters: Number of characters of the text.
        unknown: The id of `<unk>`, if there is one.
    """
    count, nats = len(text.tokens) - 1, float(text.loss.sum(dtype=np.float64))
    loss = nats / count
    return {
        "loss": loss,
        "perplexity": scores.exponential(loss),
        "bits_per_character": nats / math.log(2) / max(characters - len(text.pieces[text.tokens[0]]), 1),
        "tokens": count,
        "unknown_share": 0.0 if unknown is None else float((text.tokens[1:] == unknown).mean()),
    }


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: LanguageParams) -> Outcomes:
    """Return the nats of each block of tokens, as neighbouring losses are not independent.

    Raises:
        PedigreeError: a loss is not a finite number.
    """
    return _in_blocks(_finite(predictions, prepared.manifest.splits["test"].samples))


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`, in nats per token of the prepared text.

    The nats of a token of the version's own tokenizer count where it ends in the text, so that versions with
    different tokenizers have the same blocks and their perplexities can be compared.

    Raises:
        PedigreeError: an answer has no log-probabilities of the text's tokens, or either tokenizer hides characters
            behind `<unk>`.
    """
    tokenizer = tokens.load(LanguageFacts.model_validate(prepared.manifest.facts).tokenizer)
    ids = load_split(prepared.folder, "test")["tokens"].numpy()
    parts = []
    for answer, (warm_up, start, stop) in zip(answers, passages(len(ids)), strict=True):
        own = ids[warm_up:stop].tolist()
        nats = _nats(answer, tokens.pieces(tokenizer, own), tokens.written(tokenizer, own))
        parts.append(nats[start - 1 - warm_up :])
    return _in_blocks(np.concatenate(parts))


def _nats(answer: Row | Rejected, own: Sequence[str], text: str) -> NDArray[np.float64]:
    """Return an answer's nats for each of our own tokens of the text except the first, (len(own) - 1,)."""
    if isinstance(answer, Rejected):
        raise PedigreeError(f"it rejects the test text: {answer.reason}")
    if not {"tokens", "log_probabilities"} <= answer.keys():
        raise PedigreeError("its answers have no log-probabilities of the text's own tokens")
    first = 1 if "log_probability" in answer else 0  # older versions do not score the first token
    theirs: Sequence[str] = answer["tokens"][first:]
    # The last token, such as an opening bracket, may be another without what follows it.
    same = len(theirs) == len(own) - 1 and list(theirs[:-1]) == list(own[1:-1])
    if not same and tokens.UNKNOWN in {*theirs, *own}:
        raise PedigreeError(
            f"its tokens are others, and {tokens.UNKNOWN} among them hides characters: perplexities over different "
            "characters cannot be compared"
        )
    nats = -np.asarray(answer["log_probabilities"][first:], np.float64)
    if same:
        return nats
    index = np.searchsorted(alignment.ends(text, own[1:]), alignment.ends(text, theirs))
    return np.bincount(np.minimum(index, len(own) - 2), nats, len(own) - 1).astype(np.float64)


def _in_blocks(losses: NDArray[Any]) -> Outcomes:
    """Return the nats of each block of tokens, given those of each token except the text's first, (N - 1,)."""
    blocks = max(min(len(losses), FEWEST_BLOCKS), len(losses) // BLOCK)
    edges = np.arange(blocks + 1) * len(losses) // blocks
    names = [f"tokens {first + 2}-{last + 1}" for first, last in pairwise(edges.tolist())]  # counted from 1
    nats = np.add.reduceat(losses, edges[:-1], dtype=np.float64)
    return Outcomes(names, {"nats": nats, "tokens": np.diff(edges).astype(np.float64)})


def score(manifest: Manifest) -> Score:
    """Return perplexity."""
    return scores.perplexity("nats", "tokens")


def by_frequency(text: Scored, counts: NDArray[np.int64]) -> pictures.Bands:
    """Group the scored tokens by their number of occurrences in training, `counts` (vocabulary,)."""
    return _banded(text, FREQUENCIES, lambda first, last: counts[text.tokens[first:last]])


def by_position(text: Scored) -> pictures.Bands:
    """Group the scored tokens by their position in the line, counted from 1."""

    def positions(first: int, last: int) -> NDArray[np.int64]:
        tokens_ = np.arange(first, last)
        return tokens_ - text.starts[np.searchsorted(text.starts, tokens_, "right") - 1] + 1

    return _banded(text, POSITIONS, positions)


def _banded(text: Scored, begins: Sequence[int], values: Callable[[int, int], NDArray[np.int64]]) -> pictures.Bands:
    """Group the scored tokens by their `values(first, last)` into bands with ascending lower bounds `begins`."""
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
    """Return a band's name, which is valid in the name of an MLflow metric."""
    if index + 1 == len(begins):
        return f"{begins[index]} or more"
    first, last = begins[index], begins[index + 1] - 1
    return str(first) if first == last else f"{first}-{last}"


def _shown(text: Scored, tokenizer: Tokenizer) -> Iterator[tuple[str, float]]:
    """Yield each token as it appears in the text, and its loss, NaN for the first one."""
    for index, token in enumerate(text.tokens):
        after = text.tokens[index + 1 : index + 2].tolist()
        gap = tokens.gap(tokenizer, int(token), after[0]) if after else ""
        yield text.pieces[token] + gap, float(text.loss[index]) if index else math.nan


def write_lines(text: Scored, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the mean loss of each line to lines.csv, and the lines with the highest to surprising.json."""
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
    """Return Markdown with continuations of the test text's first words."""
    prompt = _prompt(tokens.decode(tokenizer, ids[: 4 * PROMPT].tolist()))
    length = max(1, round(WRITTEN * facts.tokens["test"] / facts.characters["test"]))
    write = partial(generate, model, tokenizer, prompt, top_k=0, top_p=1, seed=seed, stop="", max_length=length)
    parts = [f"# Samples\n\nThe network's continuations of the test text's beginning, with seed {seed}:\n\n"]
    parts.append(f"{indent(prompt, '    ')}\n")
    for temperature in TEMPERATURES:
        written = write(temperature=temperature)
        body = indent(f"{prompt}{written.gap}{written.text}", "    ", lambda line: True)
        parts.append(f"\n## Temperature {temperature}\n\n{body}\n")
    return "".join(parts)


def _prompt(beginning: str) -> str:
    """Return the first non-blank line, cut between words if it is too long."""
    line = beginning.strip().partition("\n")[0]
    if len(line) <= PROMPT:
        return line.rstrip()
    words, space, _ = line[: PROMPT + 1].rpartition(" ")
    return words.rstrip() if space else line[:PROMPT]
