"""Evaluation on the test texts: accuracy, calibration, texts out of scope, results by length, words that decide."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from components import figures, scores
from components.classification import labels, probabilities, ranking, report
from components.contracts import Batch, Columns, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import ingest
from components.errors import PedigreeError
from components.runtime.files import write_json
from components.tasks.text_classification import pictures
from components.tasks.text_classification.model import Classifier
from components.tasks.text_classification.params import TextParams
from components.tasks.text_classification.pictures import Explained
from components.tasks.text_classification.prepare import LABEL, OUT_OF_SCOPE, TextFacts, load_split, texts_of_test
from components.text import attribution, length_bands, repeats, tokens
from components.text.attribution import Word

CORRECT, IN_SCOPE, CONFIDENCE = "correct", "in_scope", "confidence"
"""Columns of outcomes: 1 or 0; whether the text is of a class, 1 or 0; the largest probability."""
FOREIGN = "out of scope"
"""The group of texts that belong to no class."""
SHOWN = 4
"""Number of mistakes whose deciding words are drawn, and of right answers."""
BETWEEN = "|"
"""Stands between the words of two texts."""
LENGTH = "length"
"""The groups of texts by their number of words."""
Floats = NDArray[np.float64]


def _inside(columns: Columns) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = columns[IN_SCOPE] == 1
    return inside


def _auc(columns: Columns, weights: Floats) -> float:
    return ranking.auc(columns[IN_SCOPE], columns[CONFIDENCE], weights)


ACCURACY = replace(scores.ratio("accuracy", "more", CORRECT, IN_SCOPE, share=True), counted=_inside)
OUT_OF_SCOPE_AUC = Score("out_of_scope_auc", "more", _auc, share=True)
"""Probability that a text of a class has a larger largest probability than a text of none."""


def score(manifest: Manifest) -> Score:
    """Return accuracy; where a text can have several labels, the mean of the labels' areas under the ROC curve."""
    return ranking.AUC if _facts(manifest).several else ACCURACY


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return the area under the ROC curve of the largest probability for texts out of scope, or those of labels."""
    facts = _facts(manifest)
    if facts.several:
        return [each for each in probabilities.all_scores(facts.problem) if each.name != ranking.AUC.name]
    return [OUT_OF_SCOPE_AUC] if facts.foreign["test"] else []


def _facts(manifest: Manifest) -> TextFacts:
    return TextFacts.model_validate(manifest.facts)


@dataclass(frozen=True)
class _Tested:
    """The test texts."""

    names: Sequence[str]
    texts: Sequence[Sequence[str]]
    """One or two each."""
    label: Tensor

    @property
    def clusters(self) -> list[str]:
        """What is equal for texts that are nearly equal."""
        return ["\n".join(map(repeats.key, each)) for each in self.texts]

    @property
    def lengths(self) -> list[str]:
        """The group of each text by its length."""
        return [length_bands.of_words(sum(len(text.split()) for text in each)) for each in self.texts]


def _tested(prepared: Prepared) -> _Tested:
    names = ingest.file_names(prepared.folder, "test")
    return _Tested(names, texts_of_test(prepared.folder), load_split(prepared.folder, "test")[LABEL])


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: TextParams) -> Outcomes:
    """Return whether each test text is classified correctly, and the largest probability.

    Where a text can have several labels, they are those of `probabilities.outcomes`. Texts that differ only in case
    and punctuation are a cluster; texts of a class, or of similar length, a group.
    """
    return _outcomes(report.joined(predictions), prepared)


def _outcomes(joined: Batch, prepared: Prepared) -> Outcomes:
    facts, tested = _facts(prepared.manifest), _tested(prepared)
    if facts.several:
        found = probabilities.outcomes(joined, facts.problem, tested.names, tested.clusters)
        return _with_lengths(found, tested)
    report.expect_finite(joined["logits"])
    confidence = joined["logits"].double().softmax(1).amax(1)
    # As in answers, the first of several equal logits wins.
    correct = joined["logits"].argmax(1) == joined["label"]
    return _of_single_labels(correct.double().numpy(), confidence.numpy(), tested, facts)


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`; a rejected text counts as wrong.

    Raises:
        PedigreeError: an answer lacks a column.
    """
    facts, tested = _facts(prepared.manifest), _tested(prepared)
    if facts.several:
        found = probabilities.outcomes_from(answers, tested.label, facts.problem, tested.names, tested.clusters)
        return _with_lengths(found, tested)
    correct, confidence = [], []
    for answer, name in zip(answers, _class_names(tested.label, facts), strict=True):
        if isinstance(answer, Rejected):
            correct.append(0.0)
            confidence.append(float(name == FOREIGN))
            continue
        if lacking := [column for column in ("label", "probability") if column not in answer]:
            raise PedigreeError(f"its answers have no column {lacking[0]!r} but {', '.join(map(str, answer))}")
        correct.append(float(answer["label"] == name))
        confidence.append(float(answer["probability"]))
    return _of_single_labels(np.array(correct), np.array(confidence), tested, facts)


def _class_names(label: Tensor, facts: TextFacts) -> list[str]:
    return [FOREIGN if index == OUT_OF_SCOPE else facts.classes[index] for index in label.tolist()]


def _of_single_labels(correct: Floats, confidence: Floats, tested: _Tested, facts: TextFacts) -> Outcomes:
    inside = (tested.label != OUT_OF_SCOPE).double().numpy()
    return Outcomes(
        tested.names,
        {CORRECT: correct * inside, IN_SCOPE: inside, CONFIDENCE: confidence},
        clusters=tested.clusters,
        groups={"class": _class_names(tested.label, facts), LENGTH: tested.lengths},
    )


def _with_lengths(found: Outcomes, tested: _Tested) -> Outcomes:
    return replace(
        found, groups={**found.groups, LENGTH: [tested.lengths[index] for index in found.row_samples.tolist()]}
    )


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: TextParams
) -> dict[str, float]:
    """Compute the metrics of predictions on the test split; write plots/ and examples/ below the folder `out`.

    Args:
        model: The network, on the CPU and in evaluation mode, for the words that decide.
        predictions: Batches from `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets the files of `report.evaluate` or `labels.evaluate`, but for pictures of mistakes; and
            plots/{by_length,words,out_of_scope}.png and examples/words.json.
        params: Unused.

    Raises:
        PedigreeError: a logit is not a finite number.
    """
    assert isinstance(model, Classifier), "the words that decide need the network"
    facts, tested, note = _facts(prepared.manifest), _tested(prepared), prepared.manifest.note
    joined = report.joined(predictions)
    found = _outcomes(joined, prepared)
    inside = torch.arange(len(tested.names)) if facts.several else (tested.label != OUT_OF_SCOPE).nonzero()[:, 0]
    samples = report.Samples(
        facts.classes,
        [tested.names[index] for index in inside.tolist()],
        None,
        "text",
        note,
        ["\n".join(tested.texts[index]) for index in inside.tolist()],
    )
    of_classes = {name: tensor[inside] for name, tensor in joined.items()}
    if facts.several:
        metrics = labels.evaluate(of_classes, samples, found, out)
        accuracy = probabilities.ACCURACY
    else:
        metrics = report.evaluate(of_classes, samples, out)
        metrics["accuracy_of_majority"] = _of_majority(of_classes["label"], facts)
        accuracy = ACCURACY
    if facts.foreign["test"] and not facts.several:
        metrics |= _out_of_scope(found, out / "plots", note)
    bands = _by_length(found, accuracy)
    figures.save(pictures.by_length(bands), out / "plots" / "by_length.png", note)
    _explain(model, of_classes, tested, inside, facts, out, note)
    return metrics | {f"accuracy/{name}": band.accuracy for name, band in bands.items()}


def _of_majority(label: Tensor, facts: TextFacts) -> float:
    """Return the accuracy of always answering with the most frequent class of training."""
    counts = facts.counts["train"]
    commonest = facts.classes.index(max(counts, key=lambda name: counts[name]))
    return float((label == commonest).double().mean())


def _out_of_scope(found: Outcomes, plots: Path, note: str) -> dict[str, float]:
    inside = _inside(found.columns)
    auc = _auc(found.columns, np.ones(len(inside)))
    confidence = found.columns[CONFIDENCE]
    figures.save(
        pictures.out_of_scope(confidence[inside], confidence[~inside], auc), plots / "out_of_scope.png", note
    )
    return {OUT_OF_SCOPE_AUC.name: auc}


def _by_length(found: Outcomes, accuracy: Score) -> dict[str, pictures.Band]:
    """Return the number of texts of a class and the accuracy of each group, the shortest texts first."""
    names = np.array(found.groups[LENGTH])
    counted = accuracy.counted(found.columns) if accuracy.counted else np.ones(len(names), bool)
    bands = {}
    for name in length_bands.NAMES:
        own = (names == name) & counted
        if own.any():
            texts = len(np.unique(found.row_samples[own]))
            bands[name] = pictures.Band(texts, accuracy.of(found.columns, own.astype(np.float64)))
    return bands


def _explain(
    model: Classifier,
    predictions: Batch,
    tested: _Tested,
    inside: Tensor,
    facts: TextFacts,
    out: Path,
    note: str,
) -> None:
    """Write the words that decide on the most probable class of some confident mistakes and right answers."""
    logits = predictions["logits"].double()
    probability, predicted = (logits.sigmoid() if facts.several else logits.softmax(1)).max(1)
    label = predictions["label"]
    right = label.gather(1, predicted[:, None])[:, 0] > 0 if facts.several else predicted == label
    tokenizer = tokens.load(facts.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(facts.longest)
    rows: list[dict[str, Any]] = []
    explained: list[Explained] = []
    for index in _chosen(probability, predicted, right):
        texts = tested.texts[int(inside[index])]
        actual = [facts.classes[each] for each in (label[index].nonzero() if facts.several else label[index, None])]
        name, sure = facts.classes[int(predicted[index])], float(probability[index])
        words = _words(model, tokenizer, texts, int(predicted[index]))
        rows.append(
            {
                "file": tested.names[int(inside[index])],
                "actual": actual if facts.several else actual[0],
                "predicted": name,
                "probability": round(sure, 6),
                "words": [[word.text, round(word.weight, 4)] for word in words],
            }
        )
        explained.append(Explained(f"{', '.join(actual) or 'none'} → {name} {sure:.1%}", words))
    write_json(out / "examples" / "words.json", rows)
    caption = "actual → predicted, and its probability"
    figures.save(pictures.words(explained, caption), out / "plots" / "words.png", note)


def _chosen(probability: Tensor, predicted: Tensor, right: Tensor) -> list[int]:
    """Return the most confident mistakes, and the surest right answer of some classes, the surest first."""
    order = probability.argsort(descending=True, stable=True).tolist()
    wrong = [index for index in order if not right[index]][:SHOWN]
    surest: dict[int, int] = {}
    for index in order:
        if right[index]:
            surest.setdefault(int(predicted[index]), index)
    return [*wrong, *[*surest.values()][:SHOWN]]


def _words(model: Classifier, tokenizer: Tokenizer, texts: Sequence[str], label: int) -> list[Word]:
    """Return the words of a sample and what they contribute to the logit of a class."""
    encoded = tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)
    first = sum(kind == 0 for kind in encoded.type_ids)

    def logit(token: Tensor) -> Tensor:
        length = torch.tensor([token.shape[1], first]).expand(len(token), 2)
        logits: Tensor = model(token, length[:, 0], length[:, 1])
        return logits[:, label]

    weights = attribution.of_tokens(model.embedding, logit, torch.tensor(encoded.ids)).tolist()
    one, *other = attribution.of_words(encoded, texts, weights)
    return one if not other else [*one, Word(BETWEEN, 0.0), *other[0]]
