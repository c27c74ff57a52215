"""Evaluation of transcripts of test recordings: word and character error rates, by speaker, length and noise."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from components import figures, scores
from components.contracts import Batch, Columns, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import ingest
from components.datasets.batches import spread
from components.errors import PedigreeError
from components.runtime.files import write_json
from components.sound.recordings.intake import speakers_of, texts_of
from components.tasks.speech_to_text import decoding, pictures
from components.tasks.speech_to_text.model import Recogniser
from components.tasks.speech_to_text.params import RecognitionParams
from components.tasks.speech_to_text.prepare import SOUND, TEXT, RecognitionFacts, load_split
from components.tasks.speech_to_text.train import LEVELS
from components.text import tokens
from components.text.measures import edits

BANDS = (1, 4, 7, 11, 21)
"""Lower bounds of the groups of recordings by the number of words that are said."""
LISTED = 50
"""Number of the worst transcripts, and of the commonest word errors, that are listed."""
NAMED = 30
"""Most speakers with metrics of their own."""
TIMED = 4
"""Number of recordings whose words are drawn."""
Floats = NDArray[np.float64]


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: RecognitionParams) -> Outcomes:
    """Return the word and character errors of each recording.

    The recordings of a speaker are a cluster and a group, and recordings of similar length are a group.
    """
    return _outcomes(_texts(predictions, _facts(prepared.manifest)), prepared)


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`; a rejected recording has no words.

    Raises:
        PedigreeError: an answer has no text.
    """
    found = []
    for answer in answers:
        if not isinstance(answer, Rejected) and "text" not in answer:
            raise PedigreeError(f"its answers have no column 'text' but {', '.join(map(str, answer))}")
        found.append("" if isinstance(answer, Rejected) else str(answer["text"]))
    return _outcomes(found, prepared)


def _facts(manifest: Manifest) -> RecognitionFacts:
    return RecognitionFacts.model_validate(manifest.facts)


def _texts(predictions: Iterable[Batch], facts: RecognitionFacts, name: str = "text") -> list[str]:
    tokenizer = tokens.load(facts.tokenizer)
    return [" ".join(tokens.decode(tokenizer, ids).split()) for ids in _ids(predictions, name)]


def _ids(predictions: Iterable[Batch], name: str) -> Iterator[list[int]]:
    for batch in predictions:
        lengths = batch[f"{name}_length"].tolist()
        yield from (ids[:most] for ids, most in zip(batch[name].tolist(), lengths, strict=True))


def _outcomes(found: Sequence[str], prepared: Prepared) -> Outcomes:
    references, speakers = texts_of(prepared.folder, "test", TEXT), speakers_of(prepared.folder, "test")
    commonest = _facts(prepared.manifest).commonest
    rows: dict[str, list[Sequence[int]]] = {"words": [], "characters": [], "commonest": []}
    for reference, text in zip(references, found, strict=True):
        words = reference.split()
        rows["words"].append([*edits.counts(words, text.split()), len(words)])
        rows["characters"].append([sum(edits.counts(reference, text)), len(reference)])
        rows["commonest"].append([sum(edits.counts(words, commonest.split())), len(words)])
    columns = {name: np.array(values, np.float64) for name, values in rows.items()}
    columns["exact"] = np.array(
        [text == reference for text, reference in zip(found, references, strict=True)], float
    )
    files = ingest.file_names(prepared.folder, "test")
    groups: dict[str, list[str]] = {"length": [_band(reference) for reference in references]}
    if any(speakers):
        groups["speaker"] = speakers
    clusters = [speaker or file for speaker, file in zip(speakers, files, strict=True)] if any(speakers) else ()
    return Outcomes(files, columns, clusters=clusters, groups=groups)


def _band(text: str) -> str:
    """Return the name of a transcript's group, which is valid in the name of an MLflow metric."""
    band = int(np.digitize(max(1, len(text.split())), BANDS)) - 1
    if band + 1 == len(BANDS):
        return f"{BANDS[band]} or more words"
    return f"{BANDS[band]}-{BANDS[band + 1] - 1} words"


def score(manifest: Manifest) -> Score:
    """Return the word error rate: substitutions, deletions and insertions over the words that are said."""
    return Score("wer", "less", _wer)


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return the character error rate, and the share of recordings without an error."""
    return [Score("cer", "less", _cer), scores.ratio("exact_match", "more", "exact", share=True)]


def _wer(columns: Columns, weights: Floats) -> float:
    substitutions, deletions, insertions, words = (weights @ columns["words"]).tolist()
    return float((substitutions + deletions + insertions) / max(words, 1e-12))


def _cer(columns: Columns, weights: Floats) -> float:
    wrong, characters = (weights @ columns["characters"]).tolist()
    return float(wrong / max(characters, 1e-12))


@dataclass(frozen=True)
class _Tested:
    """The test recordings and what became of them."""

    files: Sequence[str]
    speakers: Sequence[str]
    references: Sequence[str]
    found: Sequence[str]
    confidence: Floats
    loss: Floats
    """Loss of each reference in nats, (N,)."""


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: RecognitionParams
) -> dict[str, float]:
    """Compute metrics; write plots of error rates and of words in time, all transcripts and the commonest errors.

    Args:
        model: The network, on the CPU and in evaluation mode, for the times of words.
        predictions: From `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets plots/{timings,by_length,by_speaker,in_noise}.png, without the last two where they say nothing,
            and examples/{transcripts.csv,word_errors.csv,worst.json}.
        params: Unused.
    """
    assert isinstance(model, Recogniser), "times need the network"
    facts, note = _facts(prepared.manifest), prepared.manifest.note
    batches = list(predictions)
    confidence, loss = (
        np.concatenate([batch[name].numpy() for batch in batches]) for name in ("confidence", "loss")
    )
    tested = _Tested(
        ingest.file_names(prepared.folder, "test"),
        speakers_of(prepared.folder, "test"),
        texts_of(prepared.folder, "test", TEXT),
        _texts(batches, facts),
        confidence,
        loss,
    )
    table = _outcomes(tested.found, prepared)
    every = np.ones(len(tested.files))
    substitutions, deletions, insertions, words = (every @ table.columns["words"]).tolist()
    wrong, said = (every @ table.columns["commonest"]).tolist()
    noisy = _in_noise(batches, facts, tested.references) if facts.kind == "audio" else {}
    by_length, by_speaker = _by_group(table, "length"), _by_group(table, "speaker")
    plots = out / "plots"
    figures.save(pictures.timings(_timed(model, batches, prepared, tested)), plots / "timings.png", note)
    figures.save(pictures.rates(by_length, "Errors by the number of words"), plots / "by_length.png", note)
    if by_speaker:
        worst = dict(sorted(by_speaker.items(), key=lambda each: -each[1].wer)[:NAMED])
        which = f": the highest {NAMED} of {len(by_speaker):,}" if len(by_speaker) > NAMED else ""
        figures.save(pictures.rates(worst, f"Errors by speaker{which}"), plots / "by_speaker.png", note)
    if noisy:
        clean = {"no noise": pictures.Band(len(tested.files), _wer(table.columns, every))}
        shown = {
            f"{level} dB signal to noise": pictures.Band(len(tested.files), wer) for level, wer in noisy.items()
        }
        figures.save(pictures.rates(clean | shown, "Errors in pink noise"), plots / "in_noise.png", note)
    _write(tested, table, out / "examples")
    measured = (score(prepared.manifest), *further_scores(prepared.manifest))
    metrics = {
        **{each.name: each.of(table.columns, every) for each in measured},
        "substitutions": substitutions / words,
        "deletions": deletions / words,
        "insertions": insertions / words,
        "wer_of_commonest": wrong / said,
        "loss": float(loss.sum()) / float(load_split(prepared.folder, "test").ragged["target"].shapes.sum()),
        "mean_confidence": float(confidence.mean()),
        "seen_transcripts": facts.seen,
        **{f"wer_{level}db": wer for level, wer in noisy.items()},
        **{f"wer/{name}": band.wer for name, band in by_length.items()},
    }
    if len(by_speaker) <= NAMED:
        metrics |= {f"wer/{name}": band.wer for name, band in by_speaker.items()}
    return metrics


def _in_noise(batches: Sequence[Batch], facts: RecognitionFacts, references: Sequence[str]) -> dict[int, float]:
    """Return the word error rate at each level of noise, of the likeliest path."""
    found = {}
    for level in LEVELS:
        wrong = words = 0
        for reference, text in zip(references, _texts(batches, facts, f"text_{level}db"), strict=True):
            own = reference.split()
            wrong, words = wrong + sum(edits.counts(own, text.split())), words + len(own)
        found[level] = wrong / words
    return found


def _by_group(table: Outcomes, kind: str) -> dict[str, pictures.Band]:
    """Return the number of recordings and the word error rate of each group, in the order of numbers in names."""
    names = np.array(table.groups.get(kind, ()), dtype=object)
    order = sorted(
        {*names.tolist()}, key=lambda name: (int("".join(filter(str.isdigit, name.split("-")[0])) or 0), name)
    )
    return {
        name: pictures.Band(int((names == name).sum()), _wer(table.columns, (names == name).astype(np.float64)))
        for name in order
        if name
    }


@torch.inference_mode()
def _timed(
    model: Recogniser, batches: Sequence[Batch], prepared: Prepared, tested: _Tested
) -> list[pictures.Timed]:
    """Return evenly spread test recordings with words, and when these were heard."""
    facts = _facts(prepared.manifest)
    ids = [*_ids(batches, "text")]
    suitable = [index for index, own in enumerate(ids) if decoding.words_of(model, own)]
    sounds = load_split(prepared.folder, "test").ragged[SOUND]
    found = []
    for place in spread(len(suitable), TIMED).tolist():
        index = suitable[place]
        sound, length = sounds[index][None], torch.tensor([len(sounds[index])])
        log_probs, _ = model(sound, length)
        words, _ = decoding.timed(model, log_probs[0], ids[index], facts.hop)
        spectrogram, frames = model.frames(sound, length)
        picture = spectrogram[0, : int(frames)].numpy()
        seconds = int(frames) * facts.hop
        found.append(pictures.Timed(tested.files[index], picture, seconds, words, tested.references[index]))
    return found


def _write(tested: _Tested, table: Outcomes, folder: Path) -> None:
    """Write all transcripts, those with the most word errors, and the commonest word errors."""
    own = table.columns["words"]
    wrong = own[:, :3].sum(1)
    columns = {
        "file": tested.files,
        "speaker": tested.speakers,
        "reference": tested.references,
        "text": tested.found,
        "word_errors": wrong.astype(int).tolist(),
        "confidence": tested.confidence.round(6).tolist(),
        "loss": tested.loss.round(4).tolist(),
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    _csv(folder / "transcripts.csv", [*columns], [[*row.values()] for row in rows])
    worst = np.argsort(-wrong / own[:, 3], kind="stable")[:LISTED].tolist()
    write_json(folder / "worst.json", [rows[index] for index in worst if wrong[index]])
    counts = Counter(
        pair
        for reference, text in zip(tested.references, tested.found, strict=True)
        for pair in edits.aligned(reference.split(), text.split())
        if pair[0] != pair[1]
    )
    commonest = sorted(counts.items(), key=lambda each: (-each[1], each[0][0] or "", each[0][1] or ""))
    _csv(
        folder / "word_errors.csv",
        ["said", "heard", "times"],
        [[said or "", heard or "", times] for (said, heard), times in commonest[:LISTED]],
    )


def _csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
