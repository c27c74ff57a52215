"""Public recordings with transcripts, laid out for `python -m benchmarks.result`; `benchmarks.layouts` says how."""

import hashlib
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile  # type: ignore[import-untyped]

from components.datasets.raw_files import COMPOSED

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STRINGS = {"train": 2400, "val": 240, "test": 300}
"""Number of strings of digits that are composed for each split."""
INDICES = {"test": range(5), "val": range(5, 8), "train": range(8, 50)}
"""Indices of the clips of each split: 0-4 are the official test split."""
LONGEST = 7
"""Most digits of a string; the least is 2."""
GAP = (0.02, 0.3)
"""Shortest and longest silence between digits, in seconds."""
SECONDS = 0.5, 10.0
"""Shortest and longest recording of Asterisk's prompts."""


def an4(extracted: Path, folder: Path) -> None:
    """Copy AN4's cepstra and lists."""
    for name in ("etc", "feat"):
        shutil.copytree(extracted / "an4" / name, folder / name, ignore=_ignored)


def _ignored(folder: str, names: list[str]) -> list[str]:
    wanted = re.compile(r"(an4_(train|test)\.(fileids|transcription)|.*\.mfc|[^.]+)$")
    return [name for name in names if not wanted.match(name)]


def yesno(extracted: Path, folder: Path) -> None:
    """Divide the recordings by the first word: as Kaldi does, no (0) trains and yes (1) tests."""
    for file in sorted((extracted / "yesno" / "waves_yesno").glob("*.wav")):
        text = " ".join(("no", "yes")[int(word)] for word in file.stem.split("_"))
        _write(folder / ("test" if file.stem.startswith("1") else "train"), file, file.stem, text)


def asterisk(extracted: Path, folder: Path) -> None:
    """Divide the prompts of 0.5 to 10 s that have words: 80, 10 and 10 % by the hashes of their names."""
    source = extracted / "asterisk-en"
    for line in (source / "core-sounds-en.txt").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition(": ")
        file = source / f"{name}.flac"
        text = re.sub(r"\[.*?\]", " ", text)
        if line.startswith(";") or not any(map(str.isalnum, text)) or not file.is_file():
            continue
        if SECONDS[0] <= soundfile.info(file).duration <= SECONDS[1]:
            place = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
            _write(folder / {8: "val", 9: "test"}.get(place, "train"), file, name.replace("/", "-"), text.strip())


def _write(folder: Path, file: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / f"{name}{file.suffix}")
    (folder / f"{name}.txt").write_text(f"{text}\n", encoding="utf-8")


def fsdd_strings(extracted: Path, folder: Path) -> None:
    """Compose strings of 2 to 7 digits of one speaker with random silences between them, within each split."""
    clips: dict[str, dict[int, list[Path]]] = {}
    for file in sorted(extracted.rglob("*.wav")):
        _, speaker, index = file.stem.split("_")
        clips.setdefault(speaker, {}).setdefault(int(index), []).append(file)
    drawn = random.Random(0)  # noqa: S311 (not for cryptography)
    for split, count in STRINGS.items():
        (folder / split).mkdir(parents=True)
        for number in range(count):
            speaker = sorted(clips)[number % len(clips)]
            own = [file for index in INDICES[split] for file in clips[speaker][index]]
            chosen = drawn.choices(own, k=drawn.randint(2, LONGEST))
            gaps = [drawn.uniform(*GAP) for _ in chosen]
            _compose(folder / split / f"{speaker}_{number}", chosen, gaps)
    (folder / COMPOSED).write_text("Strings of digits, composed of single clips of one speaker each.\n")


def _compose(path: Path, clips: Sequence[Path], gaps: Sequence[float]) -> None:
    """Write clips of one rate with silences before them, and their digits."""
    parts = []
    for file, gap in zip(clips, gaps, strict=True):
        sound, rate = soundfile.read(file, dtype="int16")
        parts += [np.zeros(round(gap * rate), np.int16), sound]
    soundfile.write(path.with_suffix(".wav"), np.concatenate(parts), rate, subtype="PCM_16")
    text = " ".join(DIGITS[int(file.stem.partition("_")[0])] for file in clips)
    path.with_suffix(".txt").write_text(f"{text}\n", encoding="utf-8")
