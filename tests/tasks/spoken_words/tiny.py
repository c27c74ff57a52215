"""A tiny set of sounds, and what the served model must answer about it."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.classifiers import compare, predictions

RATE = 8000
SETTINGS = {
    "prepare": {"rate": RATE, "seconds": 0.25},
    "train": {
        "workers": 0,
        "epochs": 3,
        "batch_size": 8,
        "precision": "fp32",
        "features": {"mels": 16},
        "model": {"hidden": 8, "batch_norm": False, "dropout": 0},
        "augment": {
            "shift": 0,
            "speed": 0,
            "stretch": 0,
            "equaliser": 0,
            "snr": None,
            "frequency_mask": 0,
            "time_mask": 0,
        },
    },
    "register": {"gate": {"at_least": {"accuracy": 0}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds; nothing random, so that two workers are as one."""
_AUGMENT = {
    "shift": 0.1,
    "speed": 0.1,
    "stretch": 0.2,
    "equaliser": 10,
    "snr": 10,
    "frequency_mask": 4,
    "time_mask": 5,
}
VARIANTS = {
    "plain": {},
    "augmented": {"train": {"augment": _AUGMENT, "model": {"batch_norm": True, "pool": "last", "dropout": 0.2}}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""
WORDS = {"fall": (1600, 400), "hold": (800, 800), "rise": (400, 1600)}
"""Where a word's tone begins and ends, in Hz, for a speaker of pitch 1."""


def tone(word: str, pitch: float = 1, seconds: float = 0.25, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Return a word: a tone that goes from one frequency to another, faintly noisy, float64 (samples,)."""
    begin, end = WORDS[word]
    time = np.arange(round(rate * seconds)) / rate
    phase = 2 * np.pi * pitch * (begin * time + (end - begin) * time**2 / seconds / 2)
    return 0.3 * np.sin(phase) + 0.003 * np.random.default_rng(seed).standard_normal(len(time))


def write(folder: Path, speakers: int = 10, takes: int = 2) -> None:
    """Write folder/<word>/<speaker>_<take>.wav, 60 of them, each speaker with a pitch of its own."""
    for number, (word, speaker, take) in enumerate(
        (word, speaker, take) for word in WORDS for speaker in range(speakers) for take in range(takes)
    ):
        file = folder / word / f"s{speaker}_{take}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        # Some are shorter and some longer than what is prepared.
        sound = tone(word, 0.8 + 0.05 * speaker, 0.2 + 0.02 * (number % 5), seed=number)
        soundfile.write(file, sound, RATE, subtype="PCM_16")


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a request's row for each test sample, and no settings."""
    return [{"audio": (raw / row["file"]).read_bytes()} for row in predictions(evaluation)], {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare each answer with what evaluation predicted."""
    compare(answers, evaluation, "word")
