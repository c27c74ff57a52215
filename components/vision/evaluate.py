"""How good an image classifier is on the untouched test split, and where it is wrong."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from components import classification, intake
from components.contracts import Batch, Outcomes, Prepared
from components.vision.params import VisionParams
from components.vision.prepare import VisionFacts, load_split


def evaluate(
    model: nn.Module, predictions: Batch, prepared: Prepared, out: Path, params: VisionParams
) -> dict[str, float]:
    """Measure the predictions on the test split; write plots/ and examples/ below the folder `out`.

    Args:
        model: Not used: the predictions tell all.
        predictions: `logits`, float32 (N, C), and `label`, int64 (N,), on the CPU, in the split's order.
        prepared: The prepared data that the predictions were made on.
        out: Filled as `classification.evaluate` says.
        params: Not used.

    Raises:
        PedigreeError: a logit is not a finite number.
    """
    images = load_split(prepared.folder, "test")["image"]  # (N, C, H, W)

    def picture(index: int) -> NDArray[Any]:
        return images[index].permute(1, 2, 0).squeeze(2).numpy()  # (H, W) or (H, W, 3)

    classes = VisionFacts.model_validate(prepared.manifest.facts).classes
    samples = classification.Samples(classes, intake.file_names(prepared.folder, "test"), picture, "image")
    return classification.evaluate(predictions, samples, out)


def outcomes(predictions: Batch, prepared: Prepared) -> Outcomes:
    """Return what each test image adds to the accuracy."""
    classes = VisionFacts.model_validate(prepared.manifest.facts).classes
    return classification.outcomes(predictions, classes, intake.file_names(prepared.folder, "test"))
