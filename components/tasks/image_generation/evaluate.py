"""Evaluation of generated images: one for each test image, of its class."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from components import figures
from components.classification import report
from components.contracts import (
    Answering,
    Batch,
    Columns,
    Manifest,
    Outcomes,
    Prepared,
    Rejected,
    Row,
    Score,
    Sources,
)
from components.datasets import ingest
from components.datasets.batches import spread
from components.images.labels import folders
from components.images.labels.labelled import Facts
from components.tasks.image_generation import classifiers, distances, inception
from components.tasks.image_generation.params import FlowParams
from components.tasks.image_generation.prepare import load_split
from components.tasks.image_generation.sampling import between, noise, sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL, GENERATED = "real", "generated"
"""Columns of outcomes, with the hash of the network of the features behind an @."""
DIGITS = 12
"""Digits of the hash in the name of a column."""
CLOSEST = 0.01
"""Share of test images that are nearest to a training image: a sample nearer than they are may be a copy."""
COLUMNS, SHOWN = 10, 25
"""Samples of a class in the figure, and most samples in the other galleries."""
STEPS = 8
"""Images of an interpolation."""


@dataclass(frozen=True)
class _Measured:
    """Generated images, and what the classifiers make of them and of the real ones."""

    prepared: Prepared
    images: Tensor
    """uint8 (N, C, H, W), one for each test image."""

    @cached_property
    def facts(self) -> Facts:
        return Facts.model_validate(self.prepared.manifest.facts)

    @cached_property
    def label(self) -> Tensor:
        return load_split(self.prepared.folder, "test")["label"]

    def real(self, split: str) -> Tensor:
        return load_split(self.prepared.folder, split)["image"]

    def features(self, images: Tensor) -> NDArray[np.float64]:
        model = classifiers.load(self.prepared.folder, classifiers.FEATURES, self.facts)
        return classifiers.features(model, images).numpy()

    def judged(self, images: Tensor) -> Tensor:
        model = classifiers.load(self.prepared.folder, classifiers.JUDGE, self.facts)
        return classifiers.classes(model, images)


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: FlowParams
) -> dict[str, float]:
    """Compute the metrics of generated images; write plots/ and examples/ below the folder `out`.

    Args:
        model: The network on the CPU, which samples the interpolations.
        predictions: Batches of `image`, uint8 (B, C, H, W), and `label`, int64 (B,), in the test split's order.
        prepared: The prepared data, with the classifiers.
        out: Gets figures, and examples/samples.csv with a row for each image.
        params: Of sampling.
    """
    found = _Measured(prepared, report.joined(predictions)["image"])
    judged = found.judged(found.images)
    generated, test, train = (found.features(each) for each in (found.images, *map(found.real, ("test", "train"))))
    equally_many = train[spread(len(train), len(test)).numpy()]
    precision, recall = distances.precision_recall(test, generated)
    copied, nearest, near = _nearest(found)
    correct = (judged == found.label).double().numpy()
    metrics = {
        "frechet": distances.frechet(distances.normal(test), distances.normal(generated)),
        "frechet_floor": (floor := distances.frechet(distances.normal(test), distances.normal(equally_many))),
        "frechet_of_class_means": _of_means(found, test),
        "accuracy": float(correct.mean()),
        "accuracy_of_test_images": float((found.judged(found.real("test")) == found.label).double().mean()),
        "precision": precision,
        "recall": recall,
        "near_training": float(near.mean()),
    }
    metrics["frechet_ratio"] = metrics["frechet"] / floor
    each = np.array([correct[(found.label == label).numpy()].mean() for label in range(len(found.facts.classes))])
    metrics |= {f"accuracy/{name}": float(value) for name, value in zip(found.facts.classes, each, strict=True)}
    _table(out / "examples" / "samples.csv", found, judged, copied, nearest)
    note = prepared.manifest.note
    for name, figure in {
        "plots/samples": _samples(found),
        "plots/interpolations": _interpolations(model, found.facts, params),
        "plots/classes": figures.per_class({"accuracy": each}, found.facts.classes),
        "plots/nearest": _pairs(found, copied, nearest),
        "examples/mistakes": _mistakes(found, judged),
    }.items():
        figures.save(figure, out / f"{name}.png", note)
    return metrics


def further_metrics(
    predictions: Iterable[Batch], prepared: Prepared, sources: Sources, answering: Answering
) -> dict[str, float]:
    """Return `fid`, between the test images and the generated ones, by the network that `evaluate.inception` names.

    Raises:
        PedigreeError: it is another network.
    """
    network = inception.load(sources["evaluate.inception"])
    real = inception.features(network, load_split(prepared.folder, "test")["image"], "test")
    generated = inception.features(network, report.joined(predictions)["image"], "generated")
    return {"fid": inception.distance(real, generated)}


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: FlowParams) -> Outcomes:
    """Return the features of each test image and of the image generated for it, under the name of their network."""
    return _outcomes(_Measured(prepared, report.joined(predictions)["image"]), None)


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`; a rejected row has none."""
    facts = Facts.model_validate(prepared.manifest.facts)
    pairs = [(number, each) for number, each in enumerate(answers) if not isinstance(each, Rejected)]
    images = [_decoded(answer["images"][0], facts) for _, answer in pairs]
    shape = (0, facts.channels, facts.size, facts.size)
    found = _Measured(prepared, torch.stack(images) if images else torch.empty(shape, dtype=torch.uint8))
    return _outcomes(found, np.array([number for number, _ in pairs], np.int64))


def _outcomes(found: _Measured, rows: NDArray[np.int64] | None) -> Outcomes:
    chosen = slice(None) if rows is None else rows
    prepared, facts = found.prepared, found.facts
    files = ingest.file_names(prepared.folder, "test")
    network = classifiers.sha256(prepared.folder)[:DIGITS]
    return Outcomes(
        files,
        {
            f"{REAL}@{network}": found.features(found.real("test"))[chosen],
            f"{GENERATED}@{network}": found.features(found.images),
        },
        rows,
        folders.groups_of(files, facts.group) if facts.group else (),
        {"class": [facts.classes[label] for label in found.label[chosen].tolist()]},
    )


def _decoded(png: bytes, facts: Facts) -> Tensor:
    """Return a PNG as uint8 (C, H, W), in the present size and number of channels."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        pixels = np.array(image.convert("L" if facts.channels == 1 else "RGB").resize((facts.size, facts.size)))
    return torch.from_numpy(pixels).view(facts.size, facts.size, facts.channels).permute(2, 0, 1)


def score(manifest: Manifest) -> Score:
    """Return the Fréchet distance between features of test images and of generated ones."""
    return Score("frechet", "less", _frechet)


def _frechet(columns: Columns, weights: NDArray[np.float64]) -> float:
    pair = (
        next(each for name, each in columns.items() if name.startswith(f"{kind}@")) for kind in (REAL, GENERATED)
    )
    real, generated = (distances.normal(each, weights) for each in pair)
    return distances.frechet(real, generated)


def tags(prepared: Prepared) -> Mapping[str, str]:
    """Return the hash of the network of the features: distances under another one cannot be compared."""
    return {"frechet.features": classifiers.sha256(prepared.folder)}


def _of_means(found: _Measured, test: NDArray[np.float64]) -> float:
    """Return the distance of a trivial generator, whose image of a class is the mean of the training images."""
    split = load_split(found.prepared.folder, "train")
    means = [split["image"][split["label"] == label].double().mean(0) for label in range(len(found.facts.classes))]
    images = torch.stack(means).round().to(torch.uint8)
    return distances.frechet(distances.normal(test), distances.normal(found.features(images)[found.label.numpy()]))


def _nearest(found: _Measured) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return each sample's distance to the nearest training image, which one that is, and whether it is too near.

    Distances are root mean squares of the differences of pixels, in grey levels.
    """
    train, test = (found.real(split).flatten(1).numpy().astype(np.float64) for split in ("train", "test"))
    usual, _ = distances.nearest(test, train)
    copied, nearest = distances.nearest(found.images.flatten(1).numpy().astype(np.float64), train)
    return np.sqrt(copied / train.shape[1]), nearest, copied < np.quantile(usual, CLOSEST)


def _table(
    path: Path, found: _Measured, judged: Tensor, copied: NDArray[np.float64], nearest: NDArray[np.int64]
) -> None:
    """Write a row for each sample: its class, that seen in it, the hash of its pixels, and what is nearest."""
    classes, files = found.facts.classes, ingest.file_names(found.prepared.folder, "train")
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["number", "class", "judged", "pixels_sha256", "nearest", "distance"])
        for number, image in enumerate(found.images):
            label, seen = int(found.label[number]), int(judged[number])
            digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()
            near = files[nearest[number]], f"{copied[number]:.4f}"
            table.writerow([number, classes[label], classes[seen], digest, *near])


def _picture(image: Tensor) -> NDArray[Any]:
    """Return an image (C, H, W) as (H, W) or (H, W, 3)."""
    pixels: NDArray[Any] = image.permute(1, 2, 0).squeeze(2).numpy()
    return pixels


def _samples(found: _Measured) -> "Figure":
    classes = found.facts.classes[: figures.READABLE]
    rows = [found.images[found.label == label][:COLUMNS] for label in range(len(classes))]
    pictures = [[_picture(image) for image in row] for row in rows]
    return figures.grid(pictures, classes, "Generated images by class")


def _interpolations(model: nn.Module, facts: Facts, params: FlowParams) -> "Figure":
    """Draw steps from one seed to another with the class unchanged, and from one class to the next."""
    shape, total = (facts.channels, facts.size, facts.size), len(facts.classes)
    first, last = noise([0, 1], shape)
    pairs = [(label, (label + 1) % total) for label in range(0, total, max(1, total // 3))][:3]
    share = torch.linspace(0, 1, STEPS)[:, None]
    starts, labels, names = [between(first, last, STEPS)], [_mixed(total, 0, 0, share)], ["seed 0 to 1"]
    for one, other in pairs:
        starts.append(first.expand(STEPS, *shape))
        labels.append(_mixed(total, one, other, share))
        names.append(f"{facts.classes[one]} to {facts.classes[other]}")
    images = sample(model, torch.cat(starts), torch.cat(labels), params.evaluate.sampling)
    pictures = [[_picture(image) for image in row] for row in images.split(STEPS)]
    return figures.grid(pictures, names, "Interpolations between seeds and between classes")


def _mixed(classes: int, one: int, other: int, share: Tensor) -> Tensor:
    """Return weights (STEPS, classes + 1) of two classes, of which the second gets a `share`, (STEPS, 1)."""
    unit = torch.eye(classes + 1)
    return (1 - share) * unit[one] + share * unit[other]


def _pairs(found: _Measured, copied: NDArray[np.float64], nearest: NDArray[np.int64]) -> "Figure":
    train, files = found.real("train"), ingest.file_names(found.prepared.folder, "train")
    tiles = [
        figures.Tile(
            np.concatenate([_picture(found.images[n]), _picture(train[int(nearest[n])])]),
            f"distance {copied[n]:.1f}",
            files[nearest[n]],
        )
        for n in np.argsort(copied, kind="stable")[:SHOWN].tolist()
    ]
    return figures.gallery(tiles, "Generated images (above) that are nearest to a training image (below)", "")


def _mistakes(found: _Measured, judged: Tensor) -> "Figure":
    classes = found.facts.classes
    tiles = [
        figures.Tile(
            _picture(found.images[n]), f"{classes[found.label[n]]}, seen as {classes[judged[n]]}", f"sample {n}"
        )
        for n in (judged != found.label).nonzero().flatten()[:SHOWN].tolist()
    ]
    title, empty = "Generated images that a classifier takes for another class", "Each image is seen as its class."
    return figures.gallery(tiles, title, empty)
