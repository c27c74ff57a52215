"""Parameters of the tests' model, and what is prepared with them."""

from pathlib import Path
from typing import Any

from components.contracts import Prepared
from components.params import Values, read, validate
from components.tasks.driving.params import DrivingParams
from components.tasks.driving.prepare import prepare
from tests.conftest import PARAMS
from tests.tasks.driving.tiny import SETTINGS

ROOT = ("models", "highway")


def values(**sections: dict[str, Any]) -> DrivingParams:
    """Return the tests' parameters with `SETTINGS` and further changes laid over them."""
    over = Values(sections, {}).over(Values(SETTINGS, {}))
    return validate(DrivingParams, over.below(ROOT).over(read(PARAMS)), ROOT)


def prepared(folder: Path, **options: Any) -> Prepared:
    """Prepare folder/raw into a new folder beside it; `options` are those of the section prepare."""
    out = folder / "prepared"
    out.mkdir()
    return Prepared(out, prepare(folder / "raw", out, values(prepare=options)))
