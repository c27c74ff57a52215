"""Evaluation of an image classifier on the test split."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from components.classification import report
from components.contracts import Batch, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import ingest
from components.images import folders
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.prepare import VisionFacts, load_split


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: VisionParams
) -> dict[str, float]:
    """Compute the metrics of predictions on the test split; write plots/ and examples/ below the folder `out`.

    Args:
        model: Unused.
        predictions: Batches of `logits`, float32 (B, C), and `label`, int64 (B,), in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets the files of `report.evaluate`.
        params: Unused.

    Raises:
        PedigreeError: a logit is not a finite number.
    """
    images = load_split(prepared.folder, "test")["image"]  # (N, C, H, W)

    def picture(index: int) -> NDArray[Any]:
        return images[index].permute(1, 2, 0).squeeze(2).numpy()  # (H, W) or (H, W, 3)

    classes = VisionFacts.model_validate(prepared.manifest.facts).classes
    files = ingest.file_names(prepared.folder, "test")
    samples = report.Samples(classes, files, picture, "image", prepared.manifest.note)
    return report.evaluate(report.joined(predictions), samples, out)


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: VisionParams) -> Outcomes:
    """Return whether each test image is classified correctly; images of a group that was drawn form a cluster."""
    classes = VisionFacts.model_validate(prepared.manifest.facts).classes
    return report.outcomes(report.joined(predictions), classes, *_files(prepared))


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`."""
    classes = VisionFacts.model_validate(prepared.manifest.facts).classes
    label = load_split(prepared.folder, "test")["label"]
    return report.outcomes_from(answers, "label", label, classes, *_files(prepared))


def _files(prepared: Prepared) -> tuple[Sequence[str], Sequence[str]]:
    """Return the file of each test image, and its group if test was drawn by groups."""
    files = ingest.file_names(prepared.folder, "test")
    pattern = VisionFacts.model_validate(prepared.manifest.facts).group
    return files, folders.groups_of(files, pattern) if pattern else ()


def score(manifest: Manifest) -> Score:
    """Return accuracy."""
    return report.SCORE
