"""The report on a classifier of samples that can have several labels: metrics, figures and mistakes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components import figures
from components.classification import probabilities, report
from components.classification.probabilities import Problem
from components.classification.report import LISTED, SHOWN, Samples
from components.contracts import Batch, Outcomes
from components.runtime.files import write_json


def evaluate(predictions: Batch, samples: Samples, found: Outcomes, out: Path) -> dict[str, float]:
    """Compute the metrics of predictions on the test split; write into plots/ and examples/ below `out`.

    `accuracy` is the share of samples and labels that are right, `exact_match` that of samples with all labels
    right, `macro_f1` the mean of the labels' F1, and `loss` the mean binary cross-entropy in nats. examples/ gets
    predictions.csv, with a column for the probability of each class, and the samples with the most confident
    mistakes as mistakes.json and, if they have pictures, as mistakes.png.

    Args:
        predictions: `logits`, float32 (N, C), `label`, uint8 (N, C), and the thresholds, in the split's order.
        samples: The test split.
        found: The outcomes of the predictions.
        out: The evaluation's folder.
    """
    problem = Problem(samples.classes, several=True)
    logits, target = predictions["logits"].double(), problem.targets(predictions["label"])
    flagged, probability = problem.flagged(predictions), problem.probabilities(logits)
    metrics = probabilities.measure(found, predictions, problem)
    metrics["exact_match"] = float((flagged == target).all(1).double().mean())
    metrics["macro_f1"] = _macro_f1(target, flagged)
    metrics["loss"] = float(F.binary_cross_entropy_with_logits(logits, target.double()))
    _table(samples, target, flagged, probability, out / "examples" / "predictions.csv")
    _mistakes(samples, target, flagged, probability, out / "examples")
    probabilities.plot(found, problem, out / "plots", samples.note)
    names = report.metric_names(samples.classes)
    known = {name: own for name, own in zip(names, samples.classes, strict=True) if f"auc/{name}" in metrics}
    if known:
        columns = {"Average precision": "average_precision", "Sensitivity": "sensitivity", "AUC": "auc"}
        values = {text: np.array([metrics[f"{key}/{name}"] for name in known]) for text, key in columns.items()}
        figures.save(figures.per_class(values, list(known.values())), out / "plots" / "per_class.png", samples.note)
    return metrics


def _macro_f1(target: Tensor, flagged: Tensor) -> float:
    """Return the mean over classes of F1, of those that occur or are predicted."""
    both = (target & flagged).sum(0).double()  # (C,)
    either = target.sum(0) + flagged.sum(0)
    return float((2 * both / either)[either > 0].mean()) if either.any() else 0.0


def _table(samples: Samples, target: Tensor, flagged: Tensor, probability: Tensor, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "actual", "predicted", *(f"probability {name}" for name in samples.classes)])
        rows = zip(samples.files, target, flagged, probability.tolist(), strict=True)
        for name, actual, predicted, each in rows:
            table.writerow(
                [name, _names(samples, actual), _names(samples, predicted), *(round(p, 6) for p in each)]
            )


def _names(samples: Samples, row: Tensor) -> str:
    return "|".join(samples.classes[index] for index in row.nonzero().flatten().tolist())


def _mistakes(samples: Samples, target: Tensor, flagged: Tensor, probability: Tensor, folder: Path) -> None:
    """Write the samples with the most confident mistakes, each with the worst of its labels."""
    given = torch.where(flagged, probability, 1 - probability).masked_fill(flagged == target, -1)  # (N, C)
    worst, label = given.max(1)
    wrong = (worst >= 0).nonzero().flatten().tolist()
    order = sorted(wrong, key=lambda index: (-float(worst[index]), samples.files[index]))[:LISTED]
    rows = [
        {
            **report.described(samples, index),
            "actual": _names(samples, target[index]),
            "predicted": _names(samples, flagged[index]),
            "label": samples.classes[int(label[index])],
            "probability": round(float(probability[index, label[index]]), 6),
        }
        for index in order
    ]
    write_json(folder / "mistakes.json", rows)
    if samples.picture is None:
        return
    tiles = [
        figures.Tile(
            samples.picture(index),
            f"{row['actual'] or 'none'} → {row['predicted'] or 'none'}\n{row['label']} {row['probability']:.1%}",
            str(row["file"]),
        )
        for index, row in zip(order[:SHOWN], rows, strict=False)
    ]
    title = f"{len(wrong):,} of {len(samples.files):,} test {samples.noun}s with a wrong or missing label"
    title += "\nactual → predicted, and the probability given to the most surprising label"
    empty = f"All labels of all {len(samples.files):,} test {samples.noun}s are right."
    figures.save(figures.gallery(tiles, title, empty), folder / "mistakes.png", samples.note)
