"""python -P components/sound/hibari.py FOLDER SENTENCES: sentences spoken by one synthetic voice, as wav.

Hibari (Apache-2.0, the package hibari-tts) is an English voice that a program speaks, with its network in the
package. SENTENCES is a file with a JSON object on each line: the `text`, the `speed`, a factor of the voice's own
tempo, and `resampled`, two numbers whose ratio says how many of its 24,000 samples a second are left; its line
is the seed. This file imports nothing of the project, so that it starts quickly.
"""

import json
import sys
from pathlib import Path

import numpy as np
import soundfile  # type: ignore[import-untyped]
from hibari import Hibari  # type: ignore[import-untyped]
from scipy.signal import resample_poly

RATE = 16_000
"""Samples per second of the files. 2 / 3 of the voice's own keep its pitch; fewer make it higher."""


def main(folder: Path, sentences: Path) -> None:
    """Write folder/<number>.wav, 16 bits and 16,000 Hz, and beside each its text."""
    voice = Hibari()
    for index, line in enumerate(sentences.read_text(encoding="utf-8").splitlines()):
        sentence = json.loads(line)
        wave = voice(sentence["text"], sentence["speed"], seed=index)
        sound = resample_poly(wave, *sentence["resampled"])
        samples = np.clip(np.rint(sound * 32767), -32768, 32767).astype(np.int16)
        soundfile.write(folder / f"{index:04}.wav", samples, RATE, subtype="PCM_16")
        (folder / f"{index:04}.txt").write_text(f"{sentence['text']}\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
