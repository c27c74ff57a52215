"""Tiny recordings of an invented language of tones, and what the served model must answer about them."""

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

RATE = 8000
SETTINGS = {
    "prepare": {
        "rate": RATE,
        "features": {"mels": 16},
        "tokens": {"name": "char"},
        "ngrams": {"order": 2},
        "speaker": "^(?P<speaker>[a-z]+)_",
        "max_seconds": 10,
    },
    "train": {
        "workers": 0,
        "epochs": 3,
        "batch_size": 8,
        "precision": "fp32",
        "optimizer": {"name": "adamw", "lr": 1.0e-2},
        "model": {"network": "lstm", "size": 16, "layers": 1, "batch_norm": False, "dropout": 0},
        "augment": {"speed": 0, "snr": None, "frequency_mask": 0, "time_mask": 0},
    },
    "evaluate": {"search": {"beam": 4, "weight": 0.5, "word_score": 0.5}},
    "register": {"gate": {"at_most": {"wer": 2}, "milliseconds": 60_000}},
}
"""Laid over params.yaml, so that a chain takes seconds; nothing random, so that two workers are as one."""
_AUGMENT = {"speed": 0.1, "snr": 10, "frequency_mask": 4, "time_mask": 5}
VARIANTS = {
    "plain": {},
    "augmented": {"train": {"augment": _AUGMENT, "model": {"batch_norm": True, "layers": 2, "dropout": 0.2}}},
    "conformer": {"train": {"model": {"network": "conformer", "heads": 2, "inner": 16}}},
}
"""Laid over `SETTINGS`, by name: what is trained on a GPU."""
WORDS = {"fa": (1600, 400), "ho": (800, 800), "ri": (400, 1600)}
"""Where a word's tone begins and ends, in Hz, for a speaker of pitch 1."""
SPEAKERS = ("anna", "bob", "carl", "dora", "eve", "finn")


def spoken(text: str, pitch: float = 1, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Return a tone of a quarter of a second for each word, faintly noisy, float64 (samples,)."""
    noise = np.random.default_rng(seed)
    parts = []
    for word in text.split():
        begin, end = WORDS[word]
        time = np.arange(round(0.25 * rate)) / rate
        parts.append(0.3 * np.sin(2 * np.pi * pitch * (begin * time + (end - begin) * time**2 / 0.5)))
    wave = np.concatenate(parts)
    return wave + 0.003 * noise.standard_normal(len(wave))


def recordings(count: int = 60) -> list[tuple[str, str, np.ndarray]]:
    """Return names, texts of 1 to 3 words, and sounds, of speakers with pitches of their own."""
    drawn = random.Random(0)
    found = []
    for number in range(count):
        speaker = number % len(SPEAKERS)
        text = " ".join(drawn.choices([*WORDS], k=drawn.randint(1, 3)))
        found.append((f"{SPEAKERS[speaker]}_{number}", text, spoken(text, 0.8 + 0.08 * speaker, seed=number)))
    return found


def write(folder: Path, count: int = 60) -> None:
    """Write <speaker>_<number>.wav with a .txt beside each."""
    for name, text, sound in recordings(count):
        soundfile.write(folder / f"{name}.wav", sound, RATE, subtype="PCM_16")
        (folder / f"{name}.txt").write_text(f"{text}\n")


def table(evaluation: Path) -> list[dict[str, str]]:
    """Return the rows of transcripts.csv."""
    with (evaluation / "examples" / "transcripts.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def requests(raw: Path, evaluation: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the file of each test recording, and no settings."""
    return [{"audio": (raw / row["file"]).read_bytes()} for row in table(evaluation)], {}


def check(answers: list[dict[str, Any]], evaluation: Path) -> None:
    """Compare texts and confidences with those of evaluation, and look at the times of words."""
    rows = table(evaluation)
    assert [answer["text"] for answer in answers] == [row["text"] for row in rows]
    expected = [float(row["confidence"]) for row in rows]
    assert [answer["confidence"] for answer in answers] == pytest.approx(expected, abs=1e-4)
    for answer in answers:
        assert " ".join(word["word"] for word in answer["words"]) == answer["text"]
        times = [time for word in answer["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
