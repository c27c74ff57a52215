"""Parameters and prepared data for the tests of object detection."""

from pathlib import Path
from typing import Any

from components.contracts import Prepared
from components.params import Values, read, validate
from components.runtime.files import write_json
from components.stages.prepare import MANIFEST
from components.tasks.object_detection.params import DetectionParams
from components.tasks.object_detection.prepare import prepare
from tests.conftest import PARAMS


def values(**sections: Any) -> DetectionParams:
    """Return the tests' parameters with changes, such as `prepare={"longest": 64}`."""
    tree = Values({"models": {"scenes": sections}}, {}).over(read(PARAMS))
    return validate(DetectionParams, tree, ("models", "scenes"))


def facts(**known: Any) -> dict[str, Any]:
    """Return the facts of a manifest, of which only some are known."""
    nothing: dict[str, Any] = {"format": "", "origin": 0, "mean": [], "std": [], "counts": {}}
    return nothing | {"ids": [], "empty": {}, "sizes": [], "cases": {}} | known


def prepared(raw: Path, out: Path, **options: Any) -> Prepared:
    """Prepare a raw folder into a new folder."""
    out.mkdir(parents=True)
    manifest = prepare(raw, out, values(prepare=options))
    write_json(out / MANIFEST, manifest.model_dump())
    return Prepared(out, manifest)
