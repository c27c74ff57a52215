"""Parameters of the tests' model, and what is prepared with them."""

from pathlib import Path
from typing import Any

from components.contracts import Prepared
from components.params import Values, read, validate
from components.tasks.speech_to_text.params import RecognitionParams
from components.tasks.speech_to_text.prepare import prepare
from tests.conftest import PARAMS
from tests.tasks.speech_to_text.tiny import SETTINGS

ROOT = ("models", "commands")


def values(**sections: dict[str, Any]) -> RecognitionParams:
    """Return the tests' parameters with `SETTINGS` and further changes laid over them."""
    over = Values(sections, {}).over(Values(SETTINGS, {}))
    return validate(RecognitionParams, over.below(ROOT).over(read(PARAMS)), ROOT)


def prepared(folder: Path, **options: Any) -> Prepared:
    """Prepare folder/raw into a new folder beside it; `options` are those of the section prepare."""
    out = folder / "prepared"
    out.mkdir()
    return Prepared(out, prepare(folder / "raw", out, values(prepare=options)))
