"""Evaluation of translations of the test texts: BLEU, chrF++, results by length, the worst ones and attention."""

import csv
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from components import figures, scores
from components.contracts import Batch, Columns, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import ingest
from components.datasets.batches import spread
from components.errors import PedigreeError
from components.runtime.files import write_json
from components.runtime.progress import Progress
from components.tasks.translation import pictures
from components.tasks.translation.model import Translator
from components.tasks.translation.params import TranslationParams
from components.tasks.translation.prepare import SOURCE, TARGET, TranslationFacts, load_split, texts
from components.text import length_bands, repeats, tokens
from components.text.measures import bleu, chrf

log = logging.getLogger("pedigree.evaluate")

LISTED = 50
"""Number of the worst translations listed."""
MAPS, MAPPED = 4, (4, 16)
"""Number of maps of attention, and the least and the largest number of tokens of their sources."""
Floats = NDArray[np.float64]


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: TranslationParams) -> Outcomes:
    """Return the statistics of each translation from which BLEU and chrF++ are computed.

    Texts that differ only in case and punctuation are a cluster, and texts of similar length a group.
    """
    facts = _facts(prepared.manifest)
    return _outcomes(_translated(predictions, tokens.load(facts.tokenizer)), prepared)


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`; a rejected text counts as not translated.

    Raises:
        PedigreeError: an answer has no translation.
    """
    translated = []
    for answer in answers:
        if not isinstance(answer, Rejected) and "translation" not in answer:
            raise PedigreeError(f"its answers have no column 'translation' but {', '.join(map(str, answer))}")
        translated.append("" if isinstance(answer, Rejected) else str(answer["translation"]))
    return _outcomes(translated, prepared)


def _facts(manifest: Manifest) -> TranslationFacts:
    return TranslationFacts.model_validate(manifest.facts)


def _translated(predictions: Iterable[Batch], tokenizer: Tokenizer) -> list[str]:
    """Return the translation of each test text."""
    return [tokens.decode(tokenizer, ids.tolist()) for ids in _ids(predictions)]


def _ids(predictions: Iterable[Batch]) -> Iterator[Tensor]:
    """Yield the tokens of each translation, int64 (T,)."""
    for batch in predictions:
        lengths = batch["translation_length"].tolist()
        yield from (ids[:length] for ids, length in zip(batch["translation"], lengths, strict=True))


def _outcomes(translated: Sequence[str], prepared: Prepared) -> Outcomes:
    facts = _facts(prepared.manifest)
    sources, references = (texts(prepared.folder, "test", side, facts) for side in (SOURCE, TARGET))
    convention = facts.convention
    rows: dict[str, list[Floats]] = {"bleu": [], "chrf": [], "exact": [], "copy_bleu": [], "copy_chrf": []}
    progress = Progress(log)
    for number, (source, reference, text) in enumerate(zip(sources, references, translated, strict=True)):
        rows["bleu"].append(bleu.statistics(text, reference, convention))
        rows["chrf"].append(chrf.statistics(text, reference))
        rows["exact"].append(np.array(text == reference, np.float64))
        rows["copy_bleu"].append(bleu.statistics(source, reference, convention))
        rows["copy_chrf"].append(chrf.statistics(source, reference))
        progress.say(f"{number + 1:,} of {len(sources):,} translations compared")
    return Outcomes(
        ingest.file_names(prepared.folder, "test"),
        {name: np.stack(values) for name, values in rows.items()},
        clusters=[repeats.key(source) for source in sources],
        groups={"length": [length_bands.of_text(source) for source in sources]},
    )


def score(manifest: Manifest) -> Score:
    """Return corpus BLEU, 0 to 100."""
    return Score("bleu", "more", _bleu)


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return chrF++, the share of exact matches, and by how much BLEU exceeds that of the untranslated sources."""
    return [
        Score("chrf", "more", _chrf),
        scores.ratio("exact_match", "more", "exact", share=True),
        Score("bleu_gain", "more", _bleu_gain),
    ]


def _bleu(columns: Columns, weights: Floats) -> float:
    return bleu.score(weights @ columns["bleu"])


def _chrf(columns: Columns, weights: Floats) -> float:
    return chrf.score(weights @ columns["chrf"])


def _bleu_gain(columns: Columns, weights: Floats) -> float:
    return _bleu(columns, weights) - bleu.score(weights @ columns["copy_bleu"])


def tags(prepared: Prepared) -> Mapping[str, str]:
    """Return the signatures of BLEU and chrF++, without which their numbers cannot be compared."""
    return {"bleu.signature": _facts(prepared.manifest).convention.signature, "chrf.signature": chrf.SIGNATURE}


@dataclass(frozen=True)
class _Tested:
    """The test texts and what became of them."""

    names: Sequence[str]
    sources: Sequence[str]
    references: Sequence[str]
    translated: Sequence[str]
    scores: Floats
    """Mean log-probability of each translation, (N,), as the search compares them."""
    loss: Floats
    """Loss of each reference in nats, (N,)."""


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: TranslationParams
) -> dict[str, float]:
    """Compute metrics; write plots of BLEU by length and of attention, all translations and the worst ones.

    Args:
        model: The network, on the CPU and in evaluation mode, for the maps of attention.
        predictions: From `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets plots/{by_length,attention}.png and examples/{translations.csv,worst.json}.
        params: Unused.
    """
    assert isinstance(model, Translator), "maps of attention need the network"
    facts, note = _facts(prepared.manifest), prepared.manifest.note
    tokenizer = tokens.load(facts.tokenizer)
    batches = list(predictions)
    scored, loss = (np.concatenate([batch[name].numpy() for batch in batches]) for name in ("score", "loss"))
    tested = _Tested(
        ingest.file_names(prepared.folder, "test"),
        texts(prepared.folder, "test", SOURCE, facts),
        texts(prepared.folder, "test", TARGET, facts),
        _translated(batches, tokenizer),
        scored,
        loss,
    )
    table = _outcomes(tested.translated, prepared)
    lengths = _by_length(table)
    figures.save(pictures.by_length(lengths), out / "plots" / "by_length.png", note)
    maps = _maps(model, batches, prepared, tokenizer)
    figures.save(pictures.attention(maps, facts.source, facts.target), out / "plots" / "attention.png", note)
    _write(tested, table, out / "examples")
    every = np.ones(len(tested.names))
    measured = (score(prepared.manifest), *further_scores(prepared.manifest))
    own, reference = table.columns["bleu"][:, :2].sum(0).tolist()
    nats = float(loss.sum())
    mean = nats / float(load_split(prepared.folder, "test").ragged[TARGET].shapes.sum())
    return {
        **{each.name: each.of(table.columns, every) for each in measured},
        "bleu_of_copy": bleu.score(every @ table.columns["copy_bleu"]),
        "chrf_of_copy": chrf.score(every @ table.columns["copy_chrf"]),
        "length_ratio": own / max(reference, 1.0),
        "loss": mean,
        "perplexity": scores.exponential(mean),
        "bits_per_character": nats / math.log(2) / facts.characters["test"],
        **{f"bleu/{name}": row.bleu for name, row in lengths.items()},
        **{f"chrf/{name}": row.chrf for name, row in lengths.items()},
    }


def _by_length(table: Outcomes) -> dict[str, pictures.Band]:
    """Return the number of texts and the scores of each group, the shortest texts first."""
    names = np.array(table.groups["length"])
    found = {}
    for name in length_bands.NAMES:
        own = names == name
        if own.any():
            weights = own.astype(np.float64)
            found[name] = pictures.Band(
                int(own.sum()), _bleu(table.columns, weights), _chrf(table.columns, weights)
            )
    return found


def _maps(
    model: Translator, batches: Sequence[Batch], prepared: Prepared, tokenizer: Tokenizer
) -> list[pictures.Map]:
    """Return the attention for translations of evenly spread test texts that are neither short nor long."""
    sources = load_split(prepared.folder, "test").ragged[SOURCE]
    sides = [(sources[number].long(), ids) for number, ids in enumerate(_ids(batches))]
    suitable = [pair for pair in sides if all(MAPPED[0] <= len(side) <= MAPPED[1] for side in pair)]
    found: list[pictures.Map] = []
    for index in spread(len(suitable), MAPS).tolist():
        source, ids = suitable[index]
        weights = model.attention(source[None], torch.tensor([len(source)]), ids[None])[0]
        pieces = [tokens.pieces(tokenizer, side.tolist()) for side in (source[:-1], ids)]
        found.append(pictures.Map(weights.detach().numpy(), [*pieces[0], pictures.END], pieces[1]))
    return found


def _write(tested: _Tested, table: Outcomes, folder: Path) -> None:
    """Write all translations to translations.csv, and those with the lowest chrF++ to worst.json."""
    own = np.array([chrf.score(row) for row in table.columns["chrf"]])
    columns = {
        "at": tested.names,
        "source": tested.sources,
        "reference": tested.references,
        "translation": tested.translated,
        "chrf": own.round(2).tolist(),
        "score": tested.scores.round(4).tolist(),
        "loss": tested.loss.round(4).tolist(),
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    with (folder / "translations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns])
        writer.writeheader()
        writer.writerows(rows)
    worst = np.argsort(own, kind="stable")[:LISTED].tolist()
    write_json(folder / "worst.json", [rows[index] for index in worst])
