"""python -m benchmarks.voice speak FOLDER: 2,000 sentences by Hibari, of which 200 are for testing.

python -m benchmarks.voice listen MODEL PREPARED: word error rates of pocketsphinx with its own language model, an
independent recogniser, on the test texts as a trained voice says them and as they were recorded. MODEL is the
folder with weights.safetensors, PREPARED that of the prepared data.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import soundfile  # type: ignore[import-untyped]

from components import tasks
from components.contracts import Manifest, Predict
from components.sound import voices
from components.sound.recordings.intake import texts_of
from components.sound.recordings.transcripts import normalised
from components.stages import prepare
from components.tasks.speech_synthesis import data
from components.tasks.speech_synthesis.evaluate import WORDS, wav
from components.tasks.speech_synthesis.prepare import SOUND, TEXT, SynthesisFacts, load_split
from components.text.measures import edits
from components.training import model_files

LINES, COMMANDS, TESTED = 1700, 300, 200
PACKAGES = ("numpy", "scipy", "sklearn")
RATE = 16_000
"""Samples a second that pocketsphinx's acoustic model was trained on."""


def speak(folder: Path) -> None:
    """Write folder/train/<number>.wav and folder/test/<number>.wav, each with its .txt, and a notice."""
    folder.mkdir(parents=True)
    voices.hibari("voice", folder, data.sentences(LINES, COMMANDS, *PACKAGES), data.NOTICE)
    for split in ("train", "test"):
        (folder / split).mkdir()
    for number, file in enumerate(sorted(folder.glob("*.wav"))):
        split = "test" if number % ((LINES + COMMANDS) // TESTED) == 0 else "train"
        for each in (file, file.with_suffix(".txt")):
            each.rename(folder / split / each.name)


def recogniser() -> Callable[[bytes], list[str]]:
    """Return the function that maps a wav file of `RATE` to the words that pocketsphinx hears."""
    from pocketsphinx import Decoder  # type: ignore[import-not-found,import-untyped,unused-ignore]

    decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def heard(file: bytes) -> list[str]:
        samples, rate = soundfile.read(io.BytesIO(file), dtype="int16")
        assert rate == RATE, f"pocketsphinx hears {RATE:,} samples a second"
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr.split() if hypothesis else []

    return heard


def listen(model: Path, folder: Path) -> dict[str, float]:
    """Return the word error rates of a trained voice and of the recordings."""
    predict = model_files.load_predict(tasks.load("speech_synthesis"), model)
    return error_rates(predict, folder, prepare.load(folder).manifest)


def error_rates(predict: Predict, folder: Path, manifest: Manifest) -> dict[str, float]:
    """Return the word error rates of the test texts as a voice says them, and as they were recorded."""
    hear, rate = recogniser(), SynthesisFacts.model_validate(manifest.facts).rate
    texts, sounds = texts_of(folder, "test", TEXT), load_split(folder, "test").ragged[SOUND]
    words = wrong = of_recordings = 0
    for index, text in enumerate(texts):
        (answer,) = predict([{"text": text}], {})
        assert isinstance(answer, dict), answer
        said = normalised(text, WORDS).split()
        words += len(said)
        wrong += sum(edits.counts(said, hear(answer["sound"])))
        of_recordings += sum(edits.counts(said, hear(wav(sounds[index], rate))))
    return {"wer": wrong / words, "wer_of_recordings": of_recordings / words, "sentences": len(texts)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_subparsers(dest="which", required=True)
    which.add_parser("speak").add_argument("folder", type=Path)
    heard = which.add_parser("listen")
    heard.add_argument("model", type=Path)
    heard.add_argument("prepared", type=Path)
    given = parser.parse_args()
    if given.which == "speak":
        speak(given.folder)
    else:
        print(listen(given.model, given.prepared))


if __name__ == "__main__":
    main()
