"""Parameters of the tests' model, what is prepared with them, and an untrained network."""

from pathlib import Path
from typing import Any

import torch

from components.contracts import Batch, Manifest, Prepared
from components.params import Values, read, validate
from components.tasks.speech_synthesis.model import Voice, build_model
from components.tasks.speech_synthesis.params import SynthesisParams
from components.tasks.speech_synthesis.prepare import prepare
from tests.conftest import PARAMS
from tests.tasks.speech_synthesis.tiny import SETTINGS

ROOT = ("models", "voice")
FACTS = {
    "rate": 8000,
    "features": {"mels": 16, "window": 0.032, "hop": 0.016},
    "characters": " aeiou",
    "mean": [-4.0] * 16,
    "std": [2.0] * 16,
    "pitch": [5.0, 0.2],
    "speakers": 0,
    "hours": {},
    "example": "ae io",
}


def values(**sections: dict[str, Any]) -> SynthesisParams:
    """Return the tests' parameters with `SETTINGS` and further changes laid over them."""
    over = Values(sections, {}).over(Values(SETTINGS, {}))
    return validate(SynthesisParams, over.below(ROOT).over(read(PARAMS)), ROOT)


def prepared(folder: Path, **options: Any) -> Prepared:
    """Prepare folder/raw into a new folder beside it; `options` are those of the section prepare."""
    out = folder / "prepared"
    out.mkdir()
    return Prepared(out, prepare(folder / "raw", out, values(prepare=options)))


def manifest() -> Manifest:
    """Return what describes a voice that says vowels."""
    return Manifest(task="speech_synthesis", splits={}, rejected=[], facts=FACTS)


def network(vocoder: str = "magnitudes") -> Voice:
    """Return a network with random weights."""
    torch.manual_seed(0)
    built = build_model(values(train={"vocoder": {"network": vocoder}}), manifest())
    assert isinstance(built, Voice)
    return built.eval()


def batch() -> Batch:
    """Return two recordings, of which the second is padded."""
    torch.manual_seed(0)
    sound = (3000 * torch.randn(2, 4000)).to(torch.int16)
    sound[1, 2500:] = 0
    target = torch.tensor([[7, 1, 2, 3, 7], [7, 4, 7, 0, 0]], dtype=torch.int32)
    pitch = 150 * torch.ones(2, 4000 // 128 + 1)
    pitch[0, :10] = pitch[1, 20:] = 0
    return {
        "sound": sound,
        "sound_length": torch.tensor([4000, 2500]),
        "target": target,
        "target_length": torch.tensor([5, 3]),
        "pitch": pitch,
        "pitch_length": torch.tensor([32, 20]),
    }


def row(own: Batch, index: int) -> Batch:
    """Return one recording alone, without padding."""
    alone = {name: each[index : index + 1] for name, each in own.items()}
    for name in ("sound", "target", "pitch"):
        alone[name] = alone[name][:, : int(alone[f"{name}_length"])]
    return alone
