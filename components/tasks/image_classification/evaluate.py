"""Evaluation of an image classifier on the test split: by its answers, and where asked for by its probabilities."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from components.classification import labels, probabilities, ranking, report
from components.contracts import Batch, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import arrays, ingest
from components.images.labels import folders
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.prepare import VisionFacts, load_split


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: VisionParams
) -> dict[str, float]:
    """Compute the metrics of predictions on the test split; write plots/ and examples/ below the folder `out`.

    Args:
        model: Unused.
        predictions: Batches of `logits`, float32 (B, C), `label`, and maybe thresholds, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets the files of `report.evaluate` or `labels.evaluate`, and of `probabilities.plot`.
        params: Unused.

    Raises:
        PedigreeError: a logit is not a finite number.
    """
    images = load_split(prepared.folder, "test")["image"]  # (N, C, H, W)

    def picture(index: int) -> NDArray[Any]:
        return images[index].permute(1, 2, 0).squeeze(2).numpy()  # (H, W) or (H, W, 3)

    facts, joined = _facts(prepared.manifest), report.joined(predictions)
    files, clusters = _files(prepared)
    samples = report.Samples(facts.classes, files, picture, "image", prepared.manifest.note)
    if not facts.ranked:
        return report.evaluate(joined, samples, out)
    found = probabilities.outcomes(joined, facts.problem, files, clusters)
    if facts.several:
        return labels.evaluate(joined, samples, found, out)
    metrics = report.evaluate(joined, samples, out, facts.problem.predicted(joined))
    probabilities.plot(found, facts.problem, out / "plots", prepared.manifest.note)
    return metrics | probabilities.measure(found, joined, facts.problem)


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: VisionParams) -> Outcomes:
    """Return whether each test image is classified correctly, or if they are evaluated, the probabilities.

    Images of a patient, or of a group that was drawn, form a cluster.
    """
    facts, joined = _facts(prepared.manifest), report.joined(predictions)
    if facts.ranked:
        return probabilities.outcomes(joined, facts.problem, *_files(prepared))
    return report.outcomes(joined, facts.classes, *_files(prepared))


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`."""
    facts, label = _facts(prepared.manifest), load_split(prepared.folder, "test")["label"]
    if facts.ranked:
        return probabilities.outcomes_from(answers, label, facts.problem, *_files(prepared))
    return report.outcomes_from(answers, "label", label, facts.classes, *_files(prepared))


def _facts(manifest: Manifest) -> VisionFacts:
    return VisionFacts.model_validate(manifest.facts)


def _files(prepared: Prepared) -> tuple[Sequence[str], Sequence[str]]:
    """Return the file of each test image, and its patient, or its group if test was drawn by groups."""
    files, facts = ingest.file_names(prepared.folder, "test"), _facts(prepared.manifest)
    if facts.patients:
        return files, [
            f"patient {number}" for number in arrays.load(prepared.folder / "test.patients.npy").tolist()
        ]
    return files, folders.groups_of(files, facts.group) if facts.group else ()


def score(manifest: Manifest) -> Score:
    """Return accuracy, or the area under the ROC curve."""
    facts = _facts(manifest)
    if not facts.ranked:
        return report.SCORE
    return ranking.AUC if facts.score == "auc" else probabilities.ACCURACY


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return the other scores of probabilities, if these are evaluated."""
    facts = _facts(manifest)
    own = score(manifest).name
    return [each for each in probabilities.all_scores(facts.problem) if each.name != own] if facts.ranked else []
