"""Evaluation on the test rows: probabilities or quantities, their calibration, costs, slices, and baselines."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components import figures, scores
from components.classification import decision, probabilities, ranking, report
from components.contracts import Batch, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.tables import baselines as fitting
from components.tables import facts, measures, slices
from components.tables.facts import CATEGORY, LABEL, NUMBER, TableFacts
from components.tasks.tabular import pictures
from components.tasks.tabular.params import TabularParams
from components.tasks.tabular.train import QUANTITY, predict

COMPARED = 20_000
"""Most training rows whose probabilities are compared with those of the test rows, evenly spaced."""
Floats = NDArray[np.float64]


def score(manifest: Manifest) -> Score:
    """Return the area under the ROC curve, or the root of the mean squared error of a quantity."""
    return ranking.AUC if facts.of(manifest).classes else measures.RMSE


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return the other scores that outcomes give, and the score of each slice."""
    own, main = facts.of(manifest), score(manifest)
    every = [each for each in _scores(own) if each.name != main.name]
    return [*every, *(each for kind in own.slices for each in _of_slices(own, kind, main))]


def _scores(known: TableFacts) -> list[Score]:
    if not known.classes:
        return list(measures.OF_QUANTITY)
    every = [*probabilities.all_scores(known.problem), measures.LOG_LOSS, measures.BRIER]
    if known.positive:
        every += [measures.KS, measures.GINI, measures.PRECISION_AT_TOP]
        every += [*measures.of_budget(known.alerts), measures.cost(known.costs)]
    return every


def _of_slices(known: TableFacts, kind: str, main: Score) -> list[Score]:
    names = slices.names(known, kind)
    metric = report.metric_names([f"{kind} {name}" for name in names])
    return [scores.of_class(main, _place(kind), index, metric[index]) for index in range(len(names))]


def _place(kind: str) -> str:
    """Return the column of outcomes with the slice of each row."""
    return f"slice {kind}"


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: TabularParams) -> Outcomes:
    """Return the probabilities of each test row, as `probabilities.outcomes` does, or the errors of a quantity.

    Rows that belong together, as equal rows or those of a group, form a cluster. Rows of a class are a group, and
    so are those of a slice.
    """
    return _outcomes(report.joined(predictions), prepared)


def _outcomes(joined: Batch, prepared: Prepared) -> Outcomes:
    known = facts.of(prepared.manifest)
    names, units = _rows(known, prepared)
    if known.classes:
        found = probabilities.outcomes(joined, known.problem, names, units)
    else:
        predicted, actual = (joined[name].double().numpy() for name in (QUANTITY, LABEL))
        if not np.isfinite(predicted).all():
            raise PedigreeError(
                "the network's outputs are not finite numbers: the training diverged, so train again with a lower "
                "train.optimizer.lr"
            )
        found = Outcomes(names, measures.quantity(predicted, actual), clusters=units)
    return _with_slices(found, known, prepared)


def _rows(known: TableFacts, prepared: Prepared) -> tuple[list[str], list[str]]:
    return facts.row_names(known, prepared.folder, "test"), facts.row_units(prepared.folder, "test")


def _with_slices(found: Outcomes, known: TableFacts, prepared: Prepared) -> Outcomes:
    if not known.slices:
        return found
    split = facts.load_split(prepared.folder, "test")
    rows = found.row_samples
    columns, groups = dict(found.columns), dict(found.groups)
    for kind in known.slices:
        place = slices.places(split, known, kind)[rows]
        columns[_place(kind)] = place.astype(np.float64)
        names = slices.names(known, kind)
        groups[kind] = [names[each] for each in place.tolist()]
    return replace(found, columns=columns, groups=groups)


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`; a rejected row counts as wrong.

    Raises:
        PedigreeError: an answer lacks a column, or a row with a quantity was rejected.
    """
    known = facts.of(prepared.manifest)
    names, units = _rows(known, prepared)
    label = facts.load_split(prepared.folder, "test")[LABEL]
    if known.classes:
        found = probabilities.outcomes_from(answers, label, known.problem, names, units)
        return _with_slices(found, known, prepared)
    predicted = []
    for answer in answers:
        if isinstance(answer, Rejected):
            raise PedigreeError(f"it rejects a test row ({answer.reason}), and has no quantity for it")
        if "value" not in answer:
            raise PedigreeError(f"its answers have no column 'value' but {', '.join(map(str, answer))}")
        predicted.append(float(answer["value"]))
    columns = measures.quantity(np.array(predicted), label.double().numpy())
    return _with_slices(Outcomes(names, columns, clusters=units), known, prepared)


def baselines(prepared: Prepared, params: TabularParams) -> Mapping[str, Outcomes]:
    """Return the outcomes of boosted trees and a linear model that are fitted on the same rows as the network."""
    known = facts.of(prepared.manifest)
    train, val, test = (facts.load_split(prepared.folder, split) for split in ("train", "val", "test"))
    found = {}
    for name, each in fitting.fitted(train, val, known, params.train.seed).items():
        predicted = torch.from_numpy(fitting.predicted(each, test, known))
        found[name] = _outcomes(_as_predictions(predicted, test[LABEL], known), prepared)
    return found


def _as_predictions(predicted: Tensor, label: Tensor, known: TableFacts) -> Batch:
    """Return probabilities (N, classes) or quantities (N,) in the form of `train.predict`."""
    if not known.classes:
        return {QUANTITY: predicted, LABEL: label}
    logits = predicted.clamp(min=1e-12).log()
    threshold = torch.full((len(label), 1), known.threshold, dtype=torch.float64)
    return {"logits": logits, LABEL: label} | ({decision.THRESHOLD: threshold} if known.positive else {})


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: TabularParams
) -> dict[str, float]:
    """Compute the metrics of predictions on the test split; write plots/ and examples/ below the folder `out`.

    Args:
        model: The network, on the CPU and in evaluation mode, whose probabilities of training rows are compared.
        predictions: Batches from `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets the files of `report.evaluate` and `probabilities.plot`, plots/decision_curve.png and
            examples/stability.csv; for a quantity plots/quantity.png and examples/predictions.csv.
        params: `evaluate.batch_size` is used.

    Raises:
        PedigreeError: an output is not a finite number.
    """
    known, joined, note = facts.of(prepared.manifest), report.joined(predictions), prepared.manifest.note
    found = _outcomes(joined, prepared)
    every = np.ones(len(found.row_samples))
    metrics: dict[str, float] = {}
    if known.classes:
        samples = report.Samples(known.classes, list(found.samples), None, "row", note)
        metrics |= report.evaluate(joined, samples, out, known.problem.predicted(joined))
        metrics |= probabilities.measure(found, joined, known.problem)
        probabilities.plot(found, known.problem, out / "plots", note)
        metrics["accuracy_of_majority"] = _of_majority(joined[LABEL], known)
        if known.positive:
            positive, probability = found.columns[ranking.POSITIVE], found.columns[ranking.PROBABILITY]
            curve = pictures.decision_curve(positive, probability, known.threshold)
            figures.save(curve, out / "plots" / "decision_curve.png", note)
            metrics["stability"] = _stability(model, probability, prepared, known, params)
    else:
        predicted, actual = (joined[name].double().numpy() for name in (QUANTITY, LABEL))
        figures.save(pictures.quantity(predicted, actual, known.target), out / "plots" / "quantity.png", note)
        _table(found.samples, predicted, actual, out / "examples" / "predictions.csv")
        metrics["rmse_of_mean"] = math.sqrt(float(((actual - known.mean) ** 2).mean()))
    for each in (score(prepared.manifest), *further_scores(prepared.manifest)):
        value = each.of(found.columns, every)
        metrics |= {} if math.isnan(value) else {each.name: value}
    _write_stability(prepared, known, out / "examples" / "stability.csv")
    return metrics


def _of_majority(label: Tensor, known: TableFacts) -> float:
    """Return the accuracy of always answering with the most frequent class of training."""
    counts = known.counts["train"]
    commonest = known.classes.index(max(counts, key=lambda name: counts[name]))
    return float((label == commonest).double().mean())


def _table(samples: Sequence[str], predicted: Floats, actual: Floats, file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened)
        table.writerow(["row", "actual", "predicted"])
        table.writerows(zip(samples, actual.tolist(), predicted.tolist(), strict=True))


@torch.inference_mode()
def _stability(
    model: nn.Module, probability: Floats, prepared: Prepared, known: TableFacts, params: TabularParams
) -> float:
    """Return the population stability index of the positive class's probability, from training to test rows."""
    rows = _sample(facts.load_split(prepared.folder, "train"))
    parts = [predict(model, rows.__getitems__(each), params) for each in torch.arange(len(rows)).split(4096)]
    before = known.problem.probabilities(torch.cat([part["logits"] for part in parts]))[:, 0].numpy()
    return measures.stability(before, probability)


def _sample(split: Columns) -> Columns:
    count = min(len(split), COMPARED)
    return split.take(torch.arange(count) * len(split) // count)


def _write_stability(prepared: Prepared, known: TableFacts, file: Path) -> None:
    """Write the population stability index of each column, from training to test rows, the largest first."""
    before, after = (_sample(facts.load_split(prepared.folder, split)) for split in ("train", "test"))
    found: dict[str, float] = {}
    for array, columns in ((NUMBER, known.numbers), (CATEGORY, known.categories)):
        for place, column in enumerate(columns):
            pair = [split[array][:, place].double().numpy() for split in (before, after)]
            # A missing number is a part of its own, below all others.
            found[column.name] = measures.stability(*(np.nan_to_num(each, nan=-np.inf) for each in pair))
    with file.open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened)
        table.writerow(["column", "stability"])
        table.writerows([name, found[name]] for name in sorted(found, key=lambda name: -found[name]))
