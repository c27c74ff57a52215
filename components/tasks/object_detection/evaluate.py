"""Evaluation of a detector on the test split."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from components import figures
from components.classification.report import metric_names
from components.contracts import Batch, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import ingest
from components.errors import PedigreeError
from components.images import drawing
from components.images.measures import average_precision, coco_eval, counting
from components.images.measures.average_precision import Floats
from components.runtime.files import write_json
from components.scores import of_class
from components.tasks.object_detection import baseline
from components.tasks.object_detection.params import DetectionParams
from components.tasks.object_detection.prepare import DetectionFacts, Images, load_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORE = Score("map", "more", average_precision.mean, share=True, graded=True)
SHOWN, LISTED = 10, 100
"""Most misses, and most false detections, in the gallery and in mistakes.json."""
TILE = 160
"""Side of a picture in the gallery, in pixels."""


@dataclass(frozen=True)
class Found:
    """What was detected in an image, by descending score, and what is there."""

    boxes: Floats  # (D, 4): left, top, right and bottom in pixels of the image's file
    score: Floats  # (D,)
    label: NDArray[np.int64]  # (D,)
    true: Floats  # (G, 6): left, top, right, bottom, label, 1 for a crowd region


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: DetectionParams
) -> dict[str, float]:
    """Compute the metrics of predictions on the test split; write plots/ and examples/ below the folder `out`.

    plots/ gets precision over recall, average precision by class, and counts by class; examples/ gets
    detections.csv with all boxes, counts.csv, and the worst misses and false detections as mistakes.json and
    mistakes.png.

    Args:
        model: The detector, of which only the thresholds are used.
        predictions: Batches of `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: The evaluation's folder.
        params: Unused.

    Raises:
        PedigreeError: a prediction is not a finite number.
    """
    classes = DetectionFacts.model_validate(prepared.manifest.facts).classes
    images = load_images(prepared.folder, "test")
    found = list(_found(predictions, images))
    outcome = _outcomes(found, classes, ingest.file_names(prepared.folder, "test"))
    names = metric_names(classes)
    metrics = coco_eval.metrics([(each.boxes, each.score, each.label, each.true) for each in found], names)
    ours = average_precision.mean(outcome.columns, np.ones(len(outcome.row_samples)))
    metrics["map"] = 0.0 if np.isnan(ours) else ours
    metrics["baseline_map50"] = baseline.map50(load_images(prepared.folder, "train"), images)
    thresholds = model.get_buffer("threshold").numpy()
    tallies = counting.count([_scored(each, len(classes)) for each in found], thresholds)
    metrics |= counting.metrics(tallies, names)
    metrics |= {f"threshold/{name}": level for name, level in zip(names, thresholds.tolist(), strict=True)}
    _write_tables(found, tallies, thresholds, classes, prepared, out / "examples")
    _plots(outcome, metrics, tallies, classes, names, out / "plots", prepared.manifest.note)
    _gallery(found, images, classes, prepared, out / "examples", thresholds)
    return metrics


def _found(predictions: Iterable[Batch], images: Images) -> Iterator[Found]:
    """Yield the detections and true boxes of each image of a split, in pixels of its file."""
    index = 0
    for batch in predictions:
        arrays = {name: tensor.double().numpy() for name, tensor in batch.items()}
        for row in range(len(arrays["score"])):
            scale = images.scale(index)
            score = arrays["score"][row]
            if not np.isfinite(score).all() or not np.isfinite(arrays["boxes"][row]).all():
                raise PedigreeError(
                    "the network's outputs are not finite numbers: the training diverged, so train again with a "
                    "lower train.optimizer.lr"
                )
            kept = score > 0
            boxes, label = arrays["boxes"][row][kept] * scale, arrays["label"][row][kept].astype(np.int64)
            yield Found(boxes, score[kept], label, images.true(index))
            index += 1


def _scored(found: Found, classes: int) -> counting.Scored:
    own = found.true[found.true[:, 5] == 0, 4].astype(np.int64)
    return counting.Scored(found.score, found.label, np.bincount(own, minlength=classes))


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: DetectionParams) -> Outcomes:
    """Return a row for each detection and each object, from which mAP is computed again with weighted images."""
    classes = DetectionFacts.model_validate(prepared.manifest.facts).classes
    found = _found(predictions, load_images(prepared.folder, "test"))
    return _outcomes(found, classes, ingest.file_names(prepared.folder, "test"))


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`; a rejected image has no detections.

    Raises:
        PedigreeError: an answer has no boxes.
    """
    classes = DetectionFacts.model_validate(prepared.manifest.facts).classes
    images = load_images(prepared.folder, "test")
    label_of = {name: label for label, name in enumerate(classes)}
    found = [_from_answer(answer, label_of, images.true(index)) for index, answer in enumerate(answers)]
    return _outcomes(found, classes, ingest.file_names(prepared.folder, "test"))


def _from_answer(answer: Row | Rejected, label_of: Mapping[str, int], true: Floats) -> Found:
    if isinstance(answer, Rejected):
        records = []
    elif "boxes" in answer:
        records = [each for each in answer["boxes"] if each["label"] in label_of]
    else:
        raise PedigreeError(f"its answers have no column 'boxes' but {', '.join(map(str, answer))}")
    sides = [(each["x"], each["y"], each["x"] + each["width"], each["y"] + each["height"]) for each in records]
    return Found(
        np.array(sides, np.float64).reshape(-1, 4),
        np.array([each["score"] for each in records], np.float64),
        np.array([label_of[each["label"]] for each in records], np.int64),
        true,
    )


def _outcomes(found: Iterable[Found], classes: Sequence[str], files: Sequence[str]) -> Outcomes:
    tables, samples = [], []
    for index, each in enumerate(found):
        tables.append(average_precision.table((each.boxes, each.score, each.label), each.true))
        samples.append(np.full(len(tables[-1]["label"]), index))
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    groups = {"class": [classes[int(label)] for label in columns["label"]]}
    return Outcomes(files, columns, sample=np.concatenate(samples), groups=groups)


def score(manifest: Manifest) -> Score:
    """Return COCO's mAP@[.5:.95]."""
    return SCORE


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return mAP@.5, and the average precision at IoU .5 of each class."""
    every = replace(SCORE, name="map50", of=average_precision.mean_at_half)
    names = metric_names(DetectionFacts.model_validate(manifest.facts).classes)
    return [every, *(of_class(every, "label", label, name) for label, name in enumerate(names))]


def _write_tables(
    found: Sequence[Found],
    tallies: counting.Counts,
    thresholds: Floats,
    classes: Sequence[str],
    prepared: Prepared,
    folder: Path,
) -> None:
    files = ingest.file_names(prepared.folder, "test")
    with (folder / "detections.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "kind", "label", "score", "x", "y", "width", "height"])
        for name, each in zip(files, found, strict=True):
            for sides, value, label in zip(
                each.boxes.tolist(), each.score.tolist(), each.label.tolist(), strict=True
            ):
                table.writerow([name, "detected", classes[label], round(value, 6), *_rounded(sides)])
            for left, top, right, bottom, label, crowd in each.true.tolist():
                kind = "crowd" if crowd else "true"
                table.writerow([name, kind, classes[int(label)], "", *_rounded([left, top, right, bottom])])
    with (folder / "counts.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "class", "threshold", "true", "counted"])
        for index, name in enumerate(files):
            for label, own in enumerate(classes):
                pair = (int(tallies.true[index, label]), int(tallies.counted[index, label]))
                table.writerow([name, own, round(float(thresholds[label]), 3), *pair])


def _rounded(sides: Sequence[float]) -> list[float]:
    left, top, right, bottom = sides
    return [round(each, 2) for each in (left, top, right - left, bottom - top)]


def _plots(
    outcome: Outcomes,
    metrics: Mapping[str, float],
    tallies: counting.Counts,
    classes: Sequence[str],
    names: Sequence[str],
    folder: Path,
    note: str,
) -> None:
    weights = np.ones(len(outcome.row_samples))
    curves = {
        own: curve[:, 0]
        for label, own in enumerate(classes)
        if (curve := average_precision.curve(outcome.columns, weights, label)) is not None
    }
    figures.save(_precision_figure(curves), folder / "precision_recall.png", note)
    known = {name: own for name, own in zip(names, classes, strict=True) if f"map/{name}" in metrics}
    if known:
        shown = {
            "AP@.5": np.array([metrics[f"map50/{name}"] for name in known]),
            "AP@[.5:.95]": np.array([metrics[f"map/{name}"] for name in known]),
        }
        figures.save(figures.per_class(shown, [*known.values()]), folder / "per_class.png", note)
    figures.save(_count_figure(tallies, classes), folder / "counts.png", note)


def _precision_figure(curves: Mapping[str, Floats]) -> "Figure":
    """Draw precision over recall at IoU .5 of each class, and the mean of all in black."""
    figure = figures.blank(6.5, 5)
    axes = figure.add_subplot(
        title="Precision and recall at IoU .5", xlabel="Recall", ylabel="Precision", xlim=(0, 1), ylim=(0, 1.01)
    )
    for number, (name, curve) in enumerate(curves.items()):
        label = figures.drawable(name, 20) if len(curves) <= 12 else None
        paint = tuple(part / 255 for part in drawing.colour(number))
        axes.plot(average_precision.RECALLS, curve, color=paint, linewidth=1, label=label)
    if curves:
        every = np.mean([*curves.values()], 0)
        axes.plot(average_precision.RECALLS, every, color="black", linewidth=2, label="mean of the classes")
        legend = axes.legend(fontsize=8, loc="lower left")
        for text in legend.get_texts():
            text.set_parse_math(False)
    axes.grid(alpha=0.3)
    return figure


def _count_figure(tallies: counting.Counts, classes: Sequence[str]) -> "Figure":
    """Draw how many objects of each class were counted in an image against how many there are."""
    from matplotlib.ticker import MaxNLocator

    order = np.argsort(-tallies.true.sum(0), kind="stable")[:6]
    figure = figures.blank(3.2 * min(len(order), 3), 3.2 * -(-len(order) // 3) + 0.3)
    figure.suptitle("Objects in a test image: counted and true", fontsize=11)
    rows = -(-len(order) // 3)
    for place, label in enumerate(order):
        axes = figure.add_subplot(rows, min(len(order), 3), place + 1, xlabel="True", ylabel="Counted")
        true, counted = tallies.true[:, label], tallies.counted[:, label]
        limit = max(true.max(), counted.max(), 1) + 0.5
        axes.plot([0, limit], [0, limit], "--", color="grey", linewidth=1)
        pairs, often = np.unique(np.stack([true, counted]), axis=1, return_counts=True)
        axes.scatter(pairs[0], pairs[1], s=8 + 150 * np.sqrt(often / often.max()), alpha=0.5)
        axes.set(xlim=(-0.5, limit), ylim=(-0.5, limit))
        axes.set_title(figures.drawable(classes[label], 24), fontsize=9, parse_math=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
    return figure


@dataclass(frozen=True)
class _Mistake:
    index: int
    kind: str
    label: int
    value: float
    """The score of a false detection, or the best score of a detection of that object, 0 if there is none."""
    box: tuple[float, float, float, float]


def _mistakes(found: Sequence[Found], thresholds: Floats) -> tuple[list[_Mistake], list[_Mistake]]:
    """Return objects that are missed at IoU .5 and the thresholds, and false detections; both the worst first.

    The worst misses are the largest objects, the worst false detections those with the highest score.
    """
    missed, false = [], []
    for index, each in enumerate(found):
        kept = each.score >= thresholds[each.label]
        one = (each.boxes[kept], each.score[kept], each.label[kept])
        for label in np.unique(np.append(one[2], each.true[:, 4].astype(int))):
            own, true = one[2] == label, each.true[each.true[:, 4] == label]
            crowd = true[:, 5] > 0
            overlap = average_precision.ious(one[0][own], true[:, :4], crowd)
            match = average_precision.matched(overlap, crowd, average_precision.THRESHOLDS[:1])[:, 0]
            for place in np.flatnonzero(match < 0):
                box, value = one[0][own][place], float(one[1][own][place])
                false.append(_Mistake(index, "false detection", int(label), value, _box(box)))
            for place in np.flatnonzero(~crowd):
                if place not in match:
                    missed.append(_Mistake(index, "miss", int(label), 0.0, _box(true[place, :4])))

    def area(mistake: _Mistake) -> float:
        left, top, right, bottom = mistake.box
        return (right - left) * (bottom - top)

    missed.sort(key=lambda each: (-area(each), each.index, each.box))
    false.sort(key=lambda each: (-each.value, each.index, each.box))
    return missed, false


def _box(sides: Floats) -> tuple[float, float, float, float]:
    left, top, right, bottom = sides.tolist()
    return left, top, right, bottom


def _gallery(
    found: Sequence[Found],
    images: Images,
    classes: Sequence[str],
    prepared: Prepared,
    folder: Path,
    thresholds: Floats,
) -> None:
    """Write mistakes.json and mistakes.png."""
    files = ingest.file_names(prepared.folder, "test")
    missed, false = _mistakes(found, thresholds)
    rows: list[dict[str, Any]] = [
        {"file": files[each.index], "kind": each.kind, "label": classes[each.label], "score": round(each.value, 6)}
        | dict(zip(("x", "y", "width", "height"), _rounded(each.box), strict=True))
        for each in (*missed[:LISTED], *false[:LISTED])
    ]
    write_json(folder / "mistakes.json", rows)
    tiles = [_tile(each, images, classes, files) for each in (*missed[:SHOWN], *false[:SHOWN])]
    title = (
        f"{len(missed):,} objects missed, largest first, and {len(false):,} false detections, surest first\n"
        "at IoU .5 and the thresholds of the classes; green: missed, red: false"
    )
    empty = "No test object is missed and no detection is false at IoU .5 and the thresholds of the classes."
    figures.save(figures.gallery(tiles, title, empty), folder / "mistakes.png", prepared.manifest.note)


def _tile(mistake: _Mistake, images: Images, classes: Sequence[str], files: Sequence[str]) -> figures.Tile:
    scale = images.scale(mistake.index)
    left, top, right, bottom = (np.array(mistake.box) / scale).tolist()
    pixels, box = drawing.cut(images.pixels[mistake.index].numpy(), (left, top, right, bottom))
    factor = TILE / max(pixels.shape[:2])
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.BICUBIC)
    scaled = (box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor)
    paint = (60, 220, 60) if mistake.kind == "miss" else (255, 60, 60)
    name = classes[mistake.label]
    caption = f"missed: {name}" if mistake.kind == "miss" else f"false: {name}\n{mistake.value:.1%}"
    return figures.Tile(np.asarray(drawing.drawn(picture, [scaled], [""], [paint])), caption, files[mistake.index])
