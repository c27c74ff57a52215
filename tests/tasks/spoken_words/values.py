"""Parameters of speech for tests: those of params.yaml with settings laid over them."""

from pathlib import Path

from components import params
from components.tasks.spoken_words.params import SpeechParams

ROOT = Path(__file__).parents[3]


def parameters(*settings: str) -> SpeechParams:
    """Return validated parameters; a setting is like `train.epochs=3`."""
    values = params.read(ROOT / "tests" / params.FILE)
    for setting in settings:
        values = params.assignment(setting, ("models", "words")).over(values)
    return params.validate(SpeechParams, values, ("models", "words"))
