"""Parameters of speech for tests: those of params.yaml with settings laid over them."""

from pathlib import Path

from components import params
from components.speech.params import SpeechParams

ROOT = Path(__file__).parents[2]


def parameters(*settings: str) -> SpeechParams:
    """Return validated parameters; a setting is like `train.epochs=3`."""
    values = params.read(ROOT / params.FILE)
    for setting in settings:
        values = params.assignment(setting, ("tasks", "speech")).over(values)
    return params.validate(SpeechParams, values, ("tasks", "speech"))
