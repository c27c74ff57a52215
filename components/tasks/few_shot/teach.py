"""The parameters with which a version learns new classes from a few images, without training."""

from collections.abc import Mapping
from pathlib import Path

from components.contracts import Manifest
from components.images.labels import class_splits
from components.tasks.few_shot.evaluate import expected
from components.tasks.few_shot.params import FewShotParams
from components.tasks.few_shot.prepare import FewShotFacts

MARGIN = 0.03
"""By how much the accuracy on the images in test may fall short of what evaluation found for so many classes."""


def taught(params: FewShotParams, manifest: Manifest, metrics: Mapping[str, float], folder: Path) -> FewShotParams:
    """Return the parameters of a version that knows the classes of a folder.

    Its images are prepared as those were with which the network was trained, and its gate demands the accuracy that
    evaluation found for so many classes, less `MARGIN`.

    Args:
        params: The parameters of the trained version.
        manifest: Its manifest.
        metrics: Its metrics.
        folder: A raw folder as `class_splits.of_support` reads it.

    Raises:
        PedigreeError: the folder cannot be read so.
    """
    facts = FewShotFacts.model_validate(manifest.facts)
    counts = class_splits.of_support(folder).counts["train"]
    prepare = {"taught": True, "size": facts.size, "channels": facts.channels}
    bound = expected(metrics, len(counts), min(counts.values())) - MARGIN
    gate = params.register_.gate.model_copy(update={"at_least": {"accuracy": bound}, "at_most": {}, "margins": {}})
    return params.model_copy(
        update={
            "prepare": params.prepare.model_copy(update=prepare),
            "register_": params.register_.model_copy(update={"gate": gate}),
        }
    )
