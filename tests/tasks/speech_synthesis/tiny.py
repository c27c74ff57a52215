"""Tiny recordings of an invented voice that says vowels, and what the served model must answer about them."""

import base64
import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 8000
SETTINGS = {
    "prepare": {
        "rate": RATE,
        "features": {"mels": 16, "window": 0.032, "hop": 0.016},
        "max_seconds": 10,
        "val_share": 0.1,
        "test_share": 0.15,
    },
    "train": {
        "workers": 0,
        "epochs": 2,
        "batch_size": 8,
        "precision": "fp32",
        "optimizer": {"name": "adamw", "lr": 3.0e-3},
        "model": {"size": 16, "encoder": 1, "decoder": 1, "kernel": 3, "dropout": 0},
        "vocoder": {"network": "magnitudes", "size": 16, "layers": 1, "iterations": 4},
    },
    "evaluate": {"limits": {"characters": 100, "seconds": 60}},
    "register": {"gate": {"at_most": {"mel_cepstral_distortion": 1000}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds."""
VARIANTS = {
    "magnitudes": {"train": {"model": {"dropout": 0.1}}},
    "istft": {"train": {"vocoder": {"network": "istft", "layers": 2}}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""
FORMANTS = {"a": (800, 1200), "e": (400, 2200), "i": (300, 2800), "o": (500, 900), "u": (300, 700)}
"""Two resonances of each letter in Hz."""
HEIGHT = 150
"""Pitch at the beginning of a recording, in Hz; it falls by a fifth of it each second."""


def spoken(text: str, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Return a tenth of a second of a vowel for each letter, and silence for a space; float64 (samples,)."""
    noise = np.random.default_rng(seed)
    size = round(0.1 * rate)
    time = np.arange(len(text) * size) / rate
    phase = 2 * np.pi * np.cumsum(HEIGHT * (1 - 0.2 * time)) / rate
    wave = np.zeros(len(time))
    for number, letter in enumerate(text):
        part = slice(number * size, (number + 1) * size)
        for harmonic in range(1, 20) if letter in FORMANTS else ():
            gain = sum(1 / (1 + ((harmonic * HEIGHT - formant) / 150) ** 2) for formant in FORMANTS[letter])
            wave[part] += 0.1 * gain * np.sin(harmonic * phase[part])
    return wave + 0.001 * noise.standard_normal(len(wave))


def recordings(count: int = 40) -> list[tuple[str, str, np.ndarray]]:
    """Return names, texts of two or three syllables, and sounds."""
    drawn = random.Random(0)
    found = []
    for number in range(count):
        text = " ".join("".join(drawn.choices("aeiou", k=2)) for _ in range(drawn.randint(2, 3)))
        found.append((f"{number:03}", text, spoken(text, seed=number)))
    return found


def write(folder: Path, count: int = 40) -> None:
    """Write <number>.wav with a .txt beside each."""
    for name, text, sound in recordings(count):
        soundfile.write(folder / f"{name}.wav", sound, RATE, subtype="PCM_16")
        (folder / f"{name}.txt").write_text(f"{text}\n")


def table(evaluation: Path) -> list[dict[str, str]]:
    """Return the rows of utterances.csv."""
    with (evaluation / "examples" / "utterances.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the text of each test recording, and no settings."""
    return [{"text": row["text"]} for row in table(evaluation)], {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare sounds with the files of evaluation, and their lengths with its table."""
    rows = table(evaluation)
    assert [round(answer["seconds"], 3) for answer in answers] == [float(row["seconds"]) for row in rows]
    files = sorted((evaluation / "examples").glob("*-synthesised.wav"))
    assert files
    for file in files:
        sound = answers[int(file.name.partition("-")[0])]["sound"]  # over HTTP and in JSON, base64
        assert (base64.b64decode(sound) if isinstance(sound, str) else sound) == file.read_bytes()
