"""Evaluation of a classifier by its probabilities: outcomes, scores, metrics and curves (formulas: `ranking`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components import figures, scores
from components.classification import decision, ranking, report
from components.classification.decision import THRESHOLD
from components.contracts import Batch, Outcomes, Rejected, Row, Score
from components.errors import PedigreeError

CORRECT, COUNTED = "correct", "counted"
"""Columns of outcomes: 1 or 0; and whether the row counts for accuracy, 1 or 0."""
ACCURACY = scores.ratio("accuracy", "more", CORRECT, COUNTED, share=True)


@dataclass(frozen=True)
class Problem:
    """What is to be told apart."""

    classes: Sequence[str]
    """Class names; a label is an index into this sequence."""
    positive: str = ""
    """Of two classes, the one that is looked for."""
    several: bool = False
    """Whether a sample can have several of the classes, or none."""

    @property
    def judged(self) -> Sequence[str]:
        """The K classes whose probabilities are evaluated: the positive one, or all."""
        return [self.positive] if self.positive else self.classes

    @property
    def index(self) -> int | None:
        """Index of the positive class."""
        return self.classes.index(self.positive) if self.positive else None

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each judged class, float64 (N, K), from logits (N, classes)."""
        if self.several or self.positive:
            return decision.probabilities(logits, self.index)
        return logits.double().softmax(1)

    def targets(self, label: Tensor) -> Tensor:
        """Return whether each sample has each judged class, bool (N, K)."""
        if self.several:
            return label > 0
        judged = [self.classes.index(name) for name in self.judged]
        return label[:, None] == torch.tensor(judged)

    def flagged(self, predictions: Batch) -> Tensor:
        """Return whether each sample is said to have each judged class, bool (N, K).

        Thresholds decide where there are any; of more than two classes, the most probable one is named.
        """
        if self.several or self.positive:
            return self.probabilities(predictions["logits"]) >= predictions[THRESHOLD]
        return torch.nn.functional.one_hot(predictions["logits"].argmax(1), len(self.classes)).bool()

    def predicted(self, predictions: Batch) -> Tensor | None:
        """Return the class of each sample by the threshold of the positive one, int64 (N,); None without one."""
        if self.index is None:
            return None
        return decision.decided(self.probabilities(predictions["logits"]), predictions[THRESHOLD], self.index)


def outcomes(predictions: Batch, problem: Problem, files: Sequence[str], clusters: Sequence[str] = ()) -> Outcomes:
    """Return one row for each sample and judged class, as `ranking` describes them, and what accuracy needs.

    Args:
        predictions: `logits` (N, classes), `label`, and the thresholds where there are any.
        problem: What is to be told apart.
        files: The raw file of each of the N samples.
        clusters: The origin of each of the N samples, if samples of one origin are similar.
    """
    report.expect_finite(predictions["logits"])
    probability, target = problem.probabilities(predictions["logits"]), problem.targets(predictions["label"])
    return _outcomes(probability, target, problem.flagged(predictions), problem, files, clusters)


def outcomes_from(
    answers: Iterable[Row | Rejected],
    label: Tensor,
    problem: Problem,
    files: Sequence[str],
    clusters: Sequence[str] = (),
) -> Outcomes:
    """Return what `outcomes` returns, from a served classifier's answers; a rejected sample counts as wrong.

    Args:
        answers: N answers, with `probabilities` by class, and `label` or `labels`.
        label: As in predictions.
        problem: As for `outcomes`.
        files: As for `outcomes`.
        clusters: As for `outcomes`.

    Raises:
        PedigreeError: an answer lacks a column or a class.
    """
    target = problem.targets(label)
    probability, flagged = torch.zeros(target.shape, dtype=torch.float64), torch.zeros_like(target)
    for index, answer in enumerate(answers):
        if isinstance(answer, Rejected):
            probability[index], flagged[index] = (~target[index]).double(), ~target[index]
            continue
        column = "labels" if problem.several else "label"
        if lacking := [name for name in ("probabilities", column) if name not in answer]:
            raise PedigreeError(f"its answers have no column {lacking[0]!r} but {', '.join(map(str, answer))}")
        known: Mapping[str, float] = answer["probabilities"]
        if unknown := [name for name in problem.judged if name not in known]:
            raise PedigreeError(f"its answers have no probability of {unknown[0]!r}")
        said = answer[column] if problem.several else [answer[column]]
        probability[index] = torch.tensor([float(known[name]) for name in problem.judged])
        flagged[index] = torch.tensor([name in said for name in problem.judged])
    return _outcomes(probability, target, flagged, problem, files, clusters)


def _outcomes(
    probability: Tensor,
    target: Tensor,
    flagged: Tensor,
    problem: Problem,
    files: Sequence[str],
    clusters: Sequence[str],
) -> Outcomes:
    samples, classes = target.shape
    # Of one class among many, only the row of the true class says whether the answer is right.
    one_of_many = not problem.several and not problem.positive
    columns = {
        CORRECT: flagged & target if one_of_many else flagged == target,
        COUNTED: target if one_of_many else torch.ones_like(target),
        ranking.POSITIVE: target,
        ranking.PROBABILITY: probability,
        ranking.FLAGGED: flagged,
        ranking.CLASS: torch.arange(classes).expand(samples, classes),
    }
    return Outcomes(
        files,
        {name: column.double().flatten().numpy() for name, column in columns.items()},
        None if classes == 1 else np.repeat(np.arange(samples), classes),
        clusters,
        {"class": [*problem.judged] * samples},
    )


def all_scores(problem: Problem) -> list[Score]:
    """Return accuracy, and the scores of `ranking` over all classes and of each."""
    return [ACCURACY, *ranking.scores(report.metric_names(problem.judged))]


def measure(found: Outcomes, predictions: Batch, problem: Problem) -> dict[str, float]:
    """Return all scores that are defined, and the thresholds under which `flagged` holds."""
    every = np.ones(len(found.row_samples))
    values = {score.name: score.of(found.columns, every) for score in all_scores(problem)}
    metrics = {name: value for name, value in values.items() if not math.isnan(value)}
    if THRESHOLD in predictions:
        levels = predictions[THRESHOLD][0].tolist()
        names = report.metric_names(problem.judged) if problem.several else [""]
        metrics |= {f"threshold/{name}".rstrip("/"): level for name, level in zip(names, levels, strict=True)}
    return metrics


def plot(found: Outcomes, problem: Problem, folder: Path, note: str) -> None:
    """Draw the ROC curves and the precision-recall curves of the judged classes into roc.png and
    precision_recall.png.

    With thresholds, a point marks where they are on each curve. A class without positives or negatives has no
    curve.
    """
    roc, precision_recall = list[figures.Curve](), list[figures.Curve]()
    for index, name in enumerate(problem.judged):
        rows = found.columns[ranking.CLASS] == index
        positive, probability, flagged = (
            found.columns[column][rows] for column in (ranking.POSITIVE, ranking.PROBABILITY, ranking.FLAGGED)
        )
        ones = np.ones(len(positive))
        true, false = ranking.curve(positive, probability, ones)
        if not true[-1] or not false[-1]:
            continue
        area = ranking.auc(positive, probability, ones)
        mean = ranking.average_precision(positive, probability, ones)
        hits, misses = float(flagged @ positive), float(flagged @ (1 - positive))
        recall = true / true[-1]
        with np.errstate(invalid="ignore"):
            precision = true / (true + false)  # nothing is flagged at the first point
        roc.append(
            figures.Curve(
                f"{name}: AUC {area:.3f}", false / false[-1], recall, (misses / false[-1], hits / true[-1])
            )
        )
        at = (hits / true[-1], hits / (hits + misses)) if hits + misses else None
        precision_recall.append(figures.Curve(f"{name}: {mean:.3f}", recall[1:], precision[1:], at))
    figures.save(figures.roc(roc), folder / "roc.png", note)
    figures.save(figures.precision_recall(precision_recall), folder / "precision_recall.png", note)
