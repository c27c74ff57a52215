"""Parameters of the tests' model, and what is prepared with them."""

from pathlib import Path
from typing import Any

from components.contracts import Prepared
from components.params import Values, read, validate
from components.tasks.text_classification.params import TextParams
from components.tasks.text_classification.prepare import prepare
from tests.conftest import PARAMS
from tests.tasks.text_classification.tiny import SETTINGS

ROOT = ("models", "topics")


def values(**sections: dict[str, Any]) -> TextParams:
    """Return the tests' parameters with `SETTINGS` and further changes laid over them."""
    over = Values(sections, {}).over(Values(SETTINGS, {}))
    return validate(TextParams, over.below(ROOT).over(read(PARAMS)), ROOT)


def prepared(folder: Path, **options: Any) -> Prepared:
    """Prepare folder/raw into a new folder beside it; `options` are those of the section prepare."""
    out = folder / "prepared"
    out.mkdir()
    return Prepared(out, prepare(folder / "raw", out, values(prepare=options)))
