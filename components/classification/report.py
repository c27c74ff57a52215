"""The report on a classifier's predictions for the test split: metrics, figures and mistakes."""

import csv
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from components import figures, scores
from components.contracts import Batch, Outcomes, Rejected, Row
from components.errors import PedigreeError
from components.runtime.files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN, LISTED = 25, 100
"""Maximum number of mistakes in the gallery and in mistakes.json."""
CHUNK = 4096
"""Samples whose float64 probabilities are in memory at once."""


@dataclass(frozen=True)
class Samples:
    """A test split for people to read."""

    classes: Sequence[str]
    """Class names; a label is an index into this sequence."""
    files: Sequence[str]
    """The raw file of each of the N samples."""
    picture: Callable[[int], NDArray[Any]] | None
    """Returns a picture of the sample at an index, for `figures.Tile.image`; None if samples have none, and then
    there is no figure of mistakes."""
    noun: str
    """The task's word for a sample, such as "image"."""
    note: str
    """A note above every figure, such as "synthetic speech"; may be empty."""
    texts: Sequence[str] | None = None
    """Of samples that are texts: these, for the list of mistakes."""


@dataclass(frozen=True)
class Answers:
    """The predictions for the test samples, in the order of the split; all of shape (N,)."""

    actual: Tensor
    predicted: Tensor
    probability: Tensor
    """Probability of the predicted class, float64."""
    loss: Tensor
    """Cross-entropy in nats, float64."""
    in_top5: Tensor

    @property
    def correct(self) -> Tensor:
        """Whether each prediction is correct."""
        return self.predicted == self.actual


def joined(predictions: Iterable[Batch]) -> Batch:
    """Concatenate the batches of predictions."""
    parts = list(predictions)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def evaluate(predictions: Batch, samples: Samples, out: Path, predicted: Tensor | None = None) -> dict[str, float]:
    """Compute the metrics of predictions on the test split; write into plots/ and examples/ below `out`.

    plots/ gets three figures; examples/ gets predictions.csv and confusion.csv, with one row per sample, and the
    most confident mistakes as mistakes.json and, of samples that have pictures, as mistakes.png.

    Args:
        predictions: `logits`, float32 (N, C), and `label`, int64 (N,), on the CPU, in the split's order.
        samples: The test split.
        out: The evaluation's folder.
        predicted: The class of each sample, int64 (N,), if not the most probable one is the answer.

    Raises:
        PedigreeError: a logit is not a finite number.
    """
    answers = judge(predictions["logits"], predictions["label"])
    if predicted is not None:
        probability = predictions["logits"].double().softmax(1).gather(1, predicted[:, None])[:, 0]
        answers = replace(answers, predicted=predicted, probability=probability)
    metrics = measure(answers, samples.classes)
    _tables(answers, samples, out / "examples")
    _plots(answers, samples, metrics, out / "plots")
    worst = _most_confident_mistakes(answers, samples.files)
    rows = [_row(answers, samples, index) for index in worst]
    write_json(out / "examples" / "mistakes.json", rows)
    if samples.picture:
        tiles = [
            figures.Tile(
                samples.picture(index),
                f"{row['actual']} → {row['predicted']}\n{row['probability']:.1%}",
                row["file"],
            )
            for index, row in zip(worst[:SHOWN], rows, strict=False)
        ]
        figures.save(_gallery(samples, tiles, answers), out / "examples" / "mistakes.png", samples.note)
    return metrics


def judge(logits: Tensor, label: Tensor) -> Answers:
    """Compare logits (N, C) with labels (N,); the first of several equal logits is the prediction.

    Raises:
        PedigreeError: a logit is not a finite number.
    """
    expect_finite(logits)
    pairs = zip(logits.split(CHUNK), label.split(CHUNK), strict=True)
    parts = [_judge(*pair) for pair in pairs]
    predicted, probability, loss, in_top5 = (torch.cat(column) for column in zip(*parts, strict=True))
    return Answers(label, predicted, probability, loss, in_top5)


def expect_finite(logits: Tensor) -> None:
    """Check that logits (N, C) are finite numbers; raises as `judge` does."""
    nonfinite = int((~logits.isfinite()).any(1).sum())
    if nonfinite:
        raise PedigreeError(
            f"the network's outputs for {nonfinite} of {len(logits)} test samples are not finite numbers: "
            "the training diverged, so train again with a lower train.optimizer.lr"
        )


def _judge(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    log_probability = logits.double().log_softmax(1)  # (n, C)
    top = logits.topk(min(5, logits.shape[1])).indices  # (n, 5)
    return (
        logits.argmax(1),
        log_probability.amax(1).exp(),
        F.nll_loss(log_probability, label, reduction="none"),
        (top == label[:, None]).any(1),
    )


SCORE = scores.ratio("accuracy", "more", "correct", share=True)


def outcomes(
    predictions: Batch, classes: Sequence[str], files: Sequence[str], clusters: Sequence[str] = ()
) -> Outcomes:
    """Return whether each prediction is correct, 1 or 0, with the sample's class as its group.

    Args:
        predictions: As for `evaluate`.
        classes: Class names; a label is an index into this sequence.
        files: The raw file of each of the N samples.
        clusters: The origin of each of the N samples, if samples of one origin are similar.
    """
    correct = judge(predictions["logits"], predictions["label"]).correct.double().numpy()
    return _outcomes(correct, _names(predictions["label"], classes), files, clusters)


def outcomes_from(
    answers: Iterable[Row | Rejected],
    column: str,
    label: Tensor,
    classes: Sequence[str],
    files: Sequence[str],
    clusters: Sequence[str] = (),
) -> Outcomes:
    """Return what `outcomes` returns, from a served classifier's answers; a rejected sample counts as wrong.

    Args:
        answers: N answers.
        column: The column of an answer with the class.
        label: True class of each sample, int64 (N,).
        classes: As for `outcomes`.
        files: As for `outcomes`.
        clusters: As for `outcomes`.

    Raises:
        PedigreeError: an answer has no such column.
    """
    names = _names(label, classes)
    correct = [float(_class(answer, column) == name) for answer, name in zip(answers, names, strict=True)]
    return _outcomes(np.array(correct), names, files, clusters)


def _names(label: Tensor, classes: Sequence[str]) -> list[str]:
    return [classes[index] for index in label.tolist()]


def _outcomes(
    correct: NDArray[np.float64], names: Sequence[str], files: Sequence[str], clusters: Sequence[str]
) -> Outcomes:
    return Outcomes(files, {"correct": correct}, clusters=clusters, groups={"class": names})


def _class(answer: Row | Rejected, column: str) -> str | None:
    if isinstance(answer, Rejected):
        return None
    if column not in answer:
        raise PedigreeError(f"its answers have no column {column!r} but {', '.join(map(str, answer))}")
    return str(answer[column])


def measure(answers: Answers, classes: Sequence[str]) -> dict[str, float]:
    """Return the metrics under names that MLflow accepts; none depends on the order of the samples.

    A class without test samples has no metrics of its own, as its recall is undefined; a class that was never
    predicted has precision 0. `loss` is in nats; `ece` is the expected calibration error over 15 equal bins (Guo et
    al. 2017, arXiv:1706.04599).
    """
    from torchmetrics.functional.classification import binary_calibration_error

    # The calibration error uses only the predicted class's probability, so the binary function is enough.
    ece = binary_calibration_error(answers.probability, answers.correct.long(), n_bins=15, norm="l1")
    return {
        "accuracy": float(answers.correct.double().mean()),
        "top5_accuracy": float(answers.in_top5.double().mean()),
        "loss": float(answers.loss.mean()),
        "ece": float(ece),
    } | _class_metrics(answers, classes)


def _class_metrics(answers: Answers, classes: Sequence[str]) -> dict[str, float]:
    from torchmetrics.functional.classification import (
        multiclass_f1_score,
        multiclass_precision,
        multiclass_recall,
    )

    scores = {"precision": multiclass_precision, "recall": multiclass_recall, "f1": multiclass_f1_score}
    pair, present = (answers.predicted, answers.actual), answers.actual.bincount(minlength=len(classes)) > 0
    metrics = {f"macro_{name}": float(score(*pair, len(classes), "macro")) for name, score in scores.items()}
    for name, score in scores.items():
        each = score(*pair, len(classes), "none")  # (C,)
        legal = zip(metric_names(classes), each.tolist(), present.tolist(), strict=True)
        metrics |= {f"{name}/{label}": value for label, value, known in legal if known}
    return metrics


def metric_names(classes: Sequence[str]) -> list[str]:
    """Return a unique name for each class that MLflow accepts in the name of a metric.

    MLflow allows up to 250 letters, digits, `_`, `-`, `.`, spaces and `:` (and `/`, which groups metrics).
    """
    legal = [re.sub(r"[^\w\-. :]", "_", unicodedata.normalize("NFC", name))[:200] for name in classes]
    # A class whose own name is legal keeps it, whichever class comes first.
    used = set(classes) & set(legal)
    names = []
    for own, name in zip(classes, legal, strict=True):
        numbered = chain([name], (f"{name}_{number}" for number in count(2)))
        free = own if own == name else next(candidate for candidate in numbered if candidate not in used)
        used.add(free)
        names.append(free)
    return names


def _tables(answers: Answers, samples: Samples, folder: Path) -> None:
    """Write confusion.csv, for DVC's confusion template, and predictions.csv, which also has the files."""
    classes = samples.classes
    columns = (answers.actual.tolist(), answers.predicted.tolist(), answers.probability.tolist())
    with (
        (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as short,
        (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as long,
    ):
        confusion, predictions = csv.writer(short), csv.writer(long)
        confusion.writerow(["actual", "predicted"])
        predictions.writerow(["file", "actual", "predicted", "probability"])
        for file, actual, predicted, probability in zip(samples.files, *columns, strict=True):
            confusion.writerow([classes[actual], classes[predicted]])
            predictions.writerow([file, classes[actual], classes[predicted], round(probability, 6)])


def _plots(answers: Answers, samples: Samples, metrics: Mapping[str, float], folder: Path) -> None:
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    classes = samples.classes
    counts = multiclass_confusion_matrix(answers.predicted, answers.actual, len(classes)).numpy()  # (C, C)
    known = {name: own for name, own in zip(metric_names(classes), classes, strict=True) if f"f1/{name}" in metrics}
    scores = {
        label: np.array([metrics[f"{score}/{name}"] for name in known])
        for label, score in {"Precision": "precision", "Recall": "recall", "F1": "f1"}.items()
    }
    drawn = {
        "confusion": figures.confusion_matrix(counts, classes),
        "reliability": figures.reliability(answers.probability.numpy(), answers.correct.numpy()),
        "per_class": figures.per_class(scores, list(known.values())),
    }
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.png", samples.note)


def _most_confident_mistakes(answers: Answers, files: Sequence[str]) -> list[int]:
    """Return the indices of up to LISTED mistakes by descending confidence, then by file name."""
    probability = answers.probability.tolist()
    wrong = (~answers.correct).nonzero().flatten().tolist()
    return nsmallest(LISTED, wrong, key=lambda index: (-probability[index], files[index]))


def _row(answers: Answers, samples: Samples, index: int) -> dict[str, Any]:
    return {
        **described(samples, index),
        "actual": samples.classes[int(answers.actual[index])],
        "predicted": samples.classes[int(answers.predicted[index])],
        "probability": round(float(answers.probability[index]), 6),
    }


def described(samples: Samples, index: int) -> dict[str, Any]:
    """Return where a sample is, and its text if it is one."""
    return {"file": samples.files[index], **({} if samples.texts is None else {"text": samples.texts[index]})}


def _gallery(samples: Samples, tiles: Sequence[figures.Tile], answers: Answers) -> "Figure":
    mistakes, total = int((~answers.correct).sum()), len(answers.correct)
    title = f"{mistakes:,} of {total:,} test {samples.noun}s predicted wrong"
    if mistakes > len(tiles):
        title += f": the {len(tiles)} most confident"
    title += "\nactual → predicted, and the probability given to the prediction"
    return figures.gallery(tiles, title, empty=f"All {total:,} test {samples.noun}s are predicted right.")
