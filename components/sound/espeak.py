"""python -P components/sound/espeak.py FOLDER: ten words in 48 voices by eSpeak NG, as wav files.

eSpeak NG (GPL-3.0, github.com/espeak-ng/espeak-ng) is called through its C interface, `speak_lib.h`. Its state
carries over from word to word, so only a new process that speaks the entire list in this order produces the same
bytes. This file imports nothing of the project, so that it starts quickly.
"""

import sys
from collections.abc import Iterator
from ctypes import CDLL, CFUNCTYPE, POINTER, c_int, c_short, c_void_p
from pathlib import Path

import espeakng_loader  # type: ignore[import-untyped]
import numpy as np
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The ten of Speech Commands (Warden 2018, arXiv:1804.03209)."""
VOICES = (
    *("Alex", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee", "Marco"),
    *(
        "Mario",
        "Michael",
        "Mike",
        "Nguyen",
        "adam",
        "anika",
        "announcer",
        "antonio",
        "aunty",
        "belinda",
        "benjamin",
    ),
    *("boris", "david", "ed", "edward", "f1", "f4", "grandma", "grandpa", "gustave", "iven", "linda", "m1"),
    *("m3", "m4", "m7", "m8", "max", "michel", "miguel", "pablo", "quincy", "steph", "steph2", "steph3", "zac"),
)
"""eSpeak NG's variants that sound human, except those with `breath`, whose noise is random."""
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-029")
SPEEDS, PITCHES = (130, 160, 190, 220, 145, 175, 205), (35, 50, 65)
"""Words per minute, and eSpeak NG's pitch, 0 to 100. Each clip uses the next of both; 7 and 3 do not divide 10."""
SYNCHRONOUS, SPEED, PITCH, UTF8 = 2, 1, 3, 1
"""Constants of speak_lib.h: AUDIO_OUTPUT_SYNCHRONOUS, espeakRATE, espeakPITCH, espeakCHARS_UTF8."""
QUIET = 200
"""Largest absolute value of a sample that is trimmed as silence at a clip's ends."""

Samples = NDArray[np.int16]


class Speaker:
    """eSpeak NG, which has one global instance per process."""

    def __init__(self) -> None:
        self._library = CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate: int = self._library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
        if self.rate <= 0:
            raise RuntimeError("eSpeak NG does not find its data")
        self._chunks: list[Samples] = []
        # A reference that keeps the callback from being garbage-collected while eSpeak NG uses it.
        self._callback = CFUNCTYPE(c_int, POINTER(c_short), c_int, c_void_p)(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: "POINTER[c_short]", count: int, events: int) -> int:  # type: ignore[valid-type]
        if samples and count:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # continue

    def say(self, word: str, voice: str, speed: int, pitch: int) -> Samples:
        """Return a word's sound without silence at its ends."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"eSpeak NG has no voice {voice}")
        self._library.espeak_SetParameter(SPEED, speed, 0)
        self._library.espeak_SetParameter(PITCH, pitch, 0)
        self._chunks.clear()
        text = word.encode()
        if self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, UTF8, None, None):
            raise RuntimeError(f"eSpeak NG could not speak {word} as {voice}")
        sound = np.concatenate(self._chunks)
        loud = np.flatnonzero(np.abs(sound.astype(np.int32)) > QUIET)
        return sound[loud[0] : loud[-1] + 1]


def clips() -> Iterator[tuple[str, str, str, int, int]]:
    """Yield each clip's file, word, eSpeak NG voice, speed and pitch, in the order of synthesis."""
    number = 0
    for voice in VOICES:
        for take, accent in enumerate(ACCENTS):
            for word in WORDS:
                speed, pitch = SPEEDS[number % len(SPEEDS)], PITCHES[number % len(PITCHES)]
                yield f"{word}/{voice}_{take}.wav", word, f"{accent}+{voice}", speed, pitch
                number += 1


def main(folder: Path) -> None:
    """Write all clips to folder/<word>/<voice>_<take>.wav, 16 bits, 22,050 Hz."""
    speaker = Speaker()
    for word in WORDS:
        (folder / word).mkdir(parents=True)
    for file, word, voice, speed, pitch in clips():
        soundfile.write(folder / file, speaker.say(word, voice, speed, pitch), speaker.rate, subtype="PCM_16")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
