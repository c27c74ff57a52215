"""Evaluation of a segmentation on the test split, at the size of the raw images."""

import csv
import heapq
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from components import figures
from components.classification.report import metric_names
from components.contracts import Batch, Columns, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import groups, ingest
from components.errors import PedigreeError
from components.images import mask_overlays
from components.images.decoding import reduced
from components.images.measures.boundaries import boundary_f1
from components.runtime.progress import Progress
from components.scores import of_class
from components.tasks.segmentation.params import SegmentationParams
from components.tasks.segmentation.prepare import IMAGE, MASK, SegmentationFacts, load_split
from components.tasks.segmentation.serve import answered
from components.tasks.segmentation.train import confusion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("pedigree.evaluate")

WORST = 8
"""Images in the gallery."""
SHOWN = 480
"""Largest side of a picture in the gallery, in pixels."""
Counts = NDArray[np.int64]


class _Predicted(NamedTuple):
    """The prediction for one image."""

    number: int
    label: NDArray[np.uint8]  # (H, W)
    counts: Counts  # (K, K): pixels of each class, in rows, by predicted class


def _each(predictions: Iterable[Batch], sizes_: NDArray[np.int64]) -> Iterator[_Predicted]:
    """Yield the prediction for each image; memory holds one batch."""
    number = 0
    for batch in predictions:
        for label, counts in zip(batch["label"].numpy(), batch["confusion"].numpy(), strict=True):
            height, width = sizes_[number]
            yield _Predicted(number, label[:height, :width], counts.astype(np.int64))
            number += 1


def _facts(prepared: Prepared) -> SegmentationFacts:
    return SegmentationFacts.model_validate(prepared.manifest.facts)


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: SegmentationParams) -> Outcomes:
    """Return for each test image and class the pixels in its intersection and union of truth and prediction."""
    counts = np.concatenate([batch["confusion"].numpy() for batch in predictions]).astype(np.int64)
    return _outcomes(counts, prepared)


def _outcomes(counts: Counts, prepared: Prepared) -> Outcomes:
    """Return outcomes from the confusion of each image, (N, K, K), or (N, K, K + 1) with predictions of no class.

    A class that is neither in the truth nor in the prediction of an image has no row.
    """
    facts = _facts(prepared)
    classes = len(facts.classes)
    square = counts[:, :, :classes]
    intersection = np.diagonal(square, axis1=1, axis2=2)  # (N, K)
    union = counts.sum(2) + square.sum(1) - intersection
    sample, index = np.nonzero(union)
    columns = {
        "class": index.astype(np.float64),
        "intersection": intersection[sample, index].astype(np.float64),
        "union": union[sample, index].astype(np.float64),
    }
    files = ingest.file_names(prepared.folder, "test")
    return Outcomes(
        files,
        columns,
        sample,
        groups.of_each(files, facts.group, "group") if facts.group else (),
        {"class": [facts.classes[each] for each in index]},
    )


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`.

    All pixels of a rejected image count as wrong, and so do those of a class that the data no longer have.

    Raises:
        PedigreeError: an answer has no mask, or one of another size.
    """
    facts, truth = _facts(prepared), load_split(prepared.folder, "test").ragged[MASK]
    counts = []
    for number, answer in enumerate(answers):
        target = truth[number].long() - 1
        wrong = len(facts.classes)  # the index of what is of no class
        predicted = torch.full_like(target, wrong)
        if not isinstance(answer, Rejected):
            predicted = torch.from_numpy(answered(answer, facts.classes)).long()
            if predicted.shape != target.shape:
                raise PedigreeError(
                    f"its mask of test image {number} has {predicted.shape[1]} x {predicted.shape[0]} pixels, not "
                    f"{target.shape[1]} x {target.shape[0]}"
                )
        counts.append(confusion(target, predicted, wrong + 1)[:wrong].numpy())
    return _outcomes(np.stack(counts), prepared)


def score(manifest: Manifest) -> Score:
    """Return the mean over classes of intersection over union, both summed over all images."""
    return Score("miou", "more", mean_iou, share=True, graded=True)


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return the intersection over union of each class."""
    names = metric_names(SegmentationFacts.model_validate(manifest.facts).classes)
    iou = replace(score(manifest), name="iou")
    return [of_class(iou, "class", index, name) for index, name in enumerate(names)]


def mean_iou(columns: Columns, weights: NDArray[np.float64]) -> float:
    """Return the mean over the classes that are in the truth or in a prediction; NaN if there are none."""
    index = columns["class"].astype(np.int64)
    union = np.bincount(index, weights * columns["union"])
    intersection = np.bincount(index, weights * columns["intersection"])
    there = union > 0
    return float((intersection[there] / union[there]).mean()) if there.any() else math.nan


@dataclass(frozen=True)
class _Measured:
    """What was summed over the test split."""

    counts: Counts  # (K, K)
    boundaries: NDArray[np.float64]  # (K,): boundary F1, averaged over images; NaN for a class without one
    worst: Sequence[tuple[float, _Predicted]]
    """The images with the lowest mean IoU of their own classes, and this."""


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: SegmentationParams
) -> dict[str, float]:
    """Compute metrics; write plots of the confusion and of the classes, predictions.csv and the worst images.

    Args:
        model: Unused.
        predictions: From `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets plots/{confusion,per_class}.png and examples/{predictions.csv,worst.png}.
        params: `evaluate.boundary_tolerance` is used.
    """
    facts = _facts(prepared)
    measured = _measure(predictions, prepared, out / "examples", params.evaluate.boundary_tolerance)
    note = prepared.manifest.note
    confused = figures.confusion_matrix(measured.counts, facts.classes, shares=True)
    figures.save(confused, out / "plots" / "confusion.png", note)
    iou = _iou(measured.counts)
    known = [index for index in range(len(facts.classes)) if not np.isnan(iou[index])]
    bars = {"Boundary F1": np.nan_to_num(measured.boundaries[known]), "IoU": iou[known]}
    figures.save(
        figures.per_class(bars, [facts.classes[index] for index in known]), out / "plots" / "per_class.png", note
    )
    figures.save(_gallery(measured.worst, prepared), out / "examples" / "worst.png", note)
    return _metrics(measured, facts)


def _measure(predictions: Iterable[Batch], prepared: Prepared, folder: Path, tolerance: float) -> _Measured:
    """Go through the predictions once, and write a row for each image."""
    facts, truth = _facts(prepared), load_split(prepared.folder, "test").ragged[MASK]
    files = ingest.file_names(prepared.folder, "test")
    classes = len(facts.classes)
    counts, total, images = np.zeros((classes, classes), np.int64), np.zeros(classes), np.zeros(classes)
    worst: list[tuple[float, int, _Predicted]] = []
    progress = Progress(log)
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "miou", "pixel_accuracy", *(f"area {name}" for name in facts.classes)])
        for each in _each(predictions, truth.shapes.numpy()):
            counts += each.counts
            labels = truth[each.number].numpy()
            scores = boundary_f1(labels, each.label, classes, tolerance * math.hypot(*labels.shape))
            total, images = total + np.nan_to_num(scores), images + ~np.isnan(scores)
            iou, right = _of_own_classes(each.counts), each.counts.trace() / max(each.counts.sum(), 1)
            areas = np.bincount(each.label.ravel(), minlength=classes) / each.label.size
            table.writerow([files[each.number], iou, right, *areas.tolist()])
            _keep_worst(worst, iou, each)
            progress.say(f"{each.number + 1:,} of {len(files):,} test images compared")
    boundaries = np.where(images > 0, total / np.maximum(images, 1), np.nan)
    return _Measured(counts, boundaries, [(-low, each) for low, _, each in sorted(worst, reverse=True)])


def _keep_worst(worst: list[tuple[float, int, _Predicted]], iou: float, each: _Predicted) -> None:
    """Keep the images with the lowest IoU, of equal ones the first; one without labelled pixels has none."""
    if not math.isnan(iou):
        push = heapq.heappush if len(worst) < WORST else heapq.heappushpop
        push(worst, (-iou, -each.number, each))


def _iou(counts: Counts) -> NDArray[np.float64]:
    """Return the IoU of each class, (K,); NaN for one that is neither true nor predicted."""
    right = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - right
    return np.where(union > 0, right / np.maximum(union, 1), np.nan)


def _of_own_classes(counts: Counts) -> float:
    """Return the mean IoU of the classes that an image has, of which pixels of other classes are missing."""
    return _mean(np.where(counts.sum(1) > 0, _iou(counts), np.nan))


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean of what is a number; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _metrics(measured: _Measured, facts: SegmentationFacts) -> dict[str, float]:
    """Return the metrics.

    `baseline_miou` is that of a map which gives each pixel the most frequent class of training. `dice` is that of
    the second of two classes, the foreground.
    """
    counts, iou = measured.counts, _iou(measured.counts)
    found = {
        "miou": _mean(iou),
        "baseline_miou": _mean(_iou(_of_one_class(counts, int(np.argmax(facts.pixels["train"]))))),
        "pixel_accuracy": float(counts.trace() / max(counts.sum(), 1)),
        "boundary_f1": _mean(measured.boundaries),
    }
    if len(iou) == 2:
        found["dice"] = float(2 * iou[1] / (1 + iou[1]))
    for name, values in (("iou", iou), ("boundary_f1", measured.boundaries)):
        pairs = zip(metric_names(facts.classes), values.tolist(), strict=True)
        found |= {f"{name}/{label}": value for label, value in pairs if not math.isnan(value)}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _of_one_class(counts: Counts, index: int) -> Counts:
    """Return the confusion of a prediction that is one class everywhere."""
    found = np.zeros_like(counts)
    found[:, index] = counts.sum(1)
    return found


def _gallery(worst: Sequence[tuple[float, _Predicted]], prepared: Prepared) -> "Figure":
    """Draw the worst images, each beside its true and its predicted classes."""
    facts, split = _facts(prepared), load_split(prepared.folder, "test")
    files = ingest.file_names(prepared.folder, "test")
    palette = mask_overlays.palette_of(facts.classes)
    tiles, seen = [], set[int]()
    for iou, each in worst:
        image = reduced.limited(split.ragged[IMAGE][each.number].numpy(), SHOWN)
        true = split.ragged[MASK][each.number].numpy() - np.uint8(1)  # 255 for pixels without a class
        maps = [reduced.nearest(labels, *image.shape[:2]) for labels in (true, each.label)]
        seen |= {int(index) for labels in maps for index in np.unique(labels)}
        pictures = [image, *(mask_overlays.blended(image, labels, palette) for labels in maps)]
        captions = ["image", "true classes", f"predicted, IoU {iou:.3f}"]
        tiles += [figures.Tile(*pair, files[each.number]) for pair in zip(pictures, captions, strict=True)]
    title = f"The {len(worst)} test images with the lowest mean IoU of their classes"
    legend = {facts.classes[index]: tuple(palette[index] / 255) for index in sorted(seen) if index < len(palette)}
    return figures.gallery(tiles, title, empty="No test image has a labelled pixel.", columns=6, legend=legend)
