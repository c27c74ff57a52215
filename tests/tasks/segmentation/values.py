"""Parameters of the tests' model, and what is prepared with them."""

from pathlib import Path
from typing import Any

from components.contracts import Prepared
from components.params import Values, read, validate
from components.tasks.segmentation.params import SegmentationParams
from components.tasks.segmentation.prepare import prepare
from tests.conftest import PARAMS
from tests.tasks.segmentation.tiny import SETTINGS

ROOT = ("models", "scene-masks")


def values(**sections: dict[str, Any]) -> SegmentationParams:
    """Return the tests' parameters with `SETTINGS` and further changes laid over them."""
    over = Values(sections, {}).over(Values(SETTINGS, {}))
    return validate(SegmentationParams, over.below(ROOT).over(read(PARAMS)), ROOT)


def prepared(folder: Path, **sections: Any) -> Prepared:
    """Prepare folder/raw into a new folder beside it; by default with classes that the masks tell."""
    out = folder / "prepared"
    out.mkdir()
    params = values(**{"prepare": {"classes": "auto"} | sections.pop("prepare", {}), **sections})
    return Prepared(out, prepare(folder / "raw", out, params))
