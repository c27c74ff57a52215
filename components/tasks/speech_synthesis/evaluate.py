"""Evaluation of synthesised test texts: distance from recordings, pitch, durations, speed and intelligibility."""

import csv
import io
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components import figures, scores
from components.contracts import (
    Answering,
    Batch,
    Columns,
    Manifest,
    Outcomes,
    Predict,
    Prepared,
    Rejected,
    Row,
    Score,
    Sources,
)
from components.datasets import ingest
from components.datasets.batches import spread
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.sound import distortion, pitch
from components.sound.params import TranscriptParams
from components.sound.recordings.intake import texts_of
from components.sound.recordings.transcripts import normalised
from components.tasks.speech_synthesis import alignment, pictures
from components.tasks.speech_synthesis.model import Voice
from components.tasks.speech_synthesis.params import SynthesisParams
from components.tasks.speech_synthesis.prepare import PITCH, SOUND, TARGET, TEXT, SynthesisFacts, load_split
from components.tasks.speech_synthesis.spectra import Spectra
from components.tasks.speech_synthesis.synthesis import synthesised
from components.tasks.speech_synthesis.train import aligned
from components.text import length_bands
from components.text.measures import edits

log = logging.getLogger("pedigree.evaluate")

SAMPLES = 6
"""Number of texts whose recording and synthesis are written as wav files."""
DRAWN, ALIGNED = 4, 2
"""Number of texts whose spectrograms, and whose alignments, are drawn."""
TIMED = 8
"""Number of texts by which the speed is measured."""
RECOGNISER = "evaluate.recogniser"
WORDS = TranscriptParams(lowercase=True, punctuation="remove", numbers="spell")
"""How texts are written before their words are compared."""
Floats = NDArray[np.float64]
Samples = NDArray[np.int16]


class _Measured(NamedTuple):
    """An utterance compared with a recording of the same text."""

    distortion: float
    """Mean along the alignment, in dB."""
    of_mean: float
    """That of the mean frame of the training recordings."""
    squares: float
    """Sum of the squared differences of the logarithms of the pitch, over pairs of voiced frames."""
    voiced: int
    """Number of these pairs."""


class _Recorded:
    """The test recordings, and how utterances are compared with them."""

    def __init__(self, prepared: Prepared) -> None:
        self.facts = _facts(prepared.manifest)
        split = load_split(prepared.folder, "test")
        self.sounds, self.pitches = split.ragged[SOUND], split.ragged[PITCH]
        self.spectra = Spectra(self.facts.rate, self.facts.features)
        self.mean = distortion.cepstra(np.array([self.facts.mean]))

    @torch.inference_mode()
    def bands(self, sound: Tensor) -> Floats:
        """Return the log-mel spectrogram of samples (N,): (T, M)."""
        found: Floats = self.spectra.bands(self.spectra.power(sound[None]))[0].double().numpy()
        return found

    def compared(self, index: int, sound: Tensor | None) -> _Measured:
        """Compare an utterance, int16 (N,), with a recording; None is one that was rejected."""
        bands = self.bands(self.sounds[index])
        inside = distortion.sounding(bands)
        recorded = distortion.cepstra(bands[inside])
        of_mean = float(distortion.distances(recorded, self.mean).mean())
        if sound is None:
            return _Measured(of_mean, of_mean, 0, 0)
        own = self.bands(sound)
        own_inside = distortion.sounding(own)
        cost = distortion.distances(recorded, distortion.cepstra(own[own_inside]))
        rows, columns = distortion.warped(cost)
        reference = self.pitches[index].double().numpy()[inside][rows]
        found = pitch.frequencies(sound.numpy(), self.facts.rate, self.spectra.hop)[own_inside][columns]
        voiced = (reference > 0) & (found > 0)
        squares = np.square(np.log(reference[voiced] / found[voiced])).sum()
        return _Measured(float(cost[rows, columns].mean()), of_mean, float(squares), int(voiced.sum()))


def _facts(manifest: Manifest) -> SynthesisFacts:
    return SynthesisFacts.model_validate(manifest.facts)


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: SynthesisParams) -> Outcomes:
    """Return the distortion of each test text's speech, that of the mean frame, and the error of its pitch.

    Texts of similar length are a group.
    """
    return _outcomes(_sounds(predictions), prepared)


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`; a rejected text counts as the mean frame.

    Raises:
        PedigreeError: an answer is no sound, or is one of another rate.
    """
    rate = _facts(prepared.manifest).rate
    return _outcomes([None if isinstance(each, Rejected) else _decoded(each, rate) for each in answers], prepared)


def _decoded(answer: Row, rate: int) -> Tensor:
    if not isinstance(answer.get("sound"), bytes):
        raise PedigreeError(f"its answers have no column 'sound' but {', '.join(map(str, answer))}")
    samples, own = soundfile.read(io.BytesIO(answer["sound"]), dtype="int16")
    if own != rate:
        raise PedigreeError(
            f"its answers have {own:,} samples a second and the test recordings {rate:,}: set prepare.rate to {own}"
        )
    return torch.from_numpy(samples)


def _sounds(predictions: Iterable[Batch]) -> list[Tensor]:
    return [
        sound[:length]
        for batch in predictions
        for sound, length in zip(batch["speech"], batch["speech_length"].tolist(), strict=True)
    ]


def _outcomes(sounds: Sequence[Tensor | None], prepared: Prepared) -> Outcomes:
    recorded, progress, rows = _Recorded(prepared), Progress(log), list[_Measured]()
    for index, sound in enumerate(sounds):
        rows.append(recorded.compared(index, sound))
        progress.say(f"{index + 1:,} of {len(sounds):,} utterances compared with recordings")
    columns = {name: np.array([getattr(row, name) for row in rows], np.float64) for name in _Measured._fields}
    bands = [length_bands.of_text(text) for text in texts_of(prepared.folder, "test", TEXT)]
    return Outcomes(ingest.file_names(prepared.folder, "test"), columns, groups={"length": bands})


def score(manifest: Manifest) -> Score:
    """Return the mean mel-cepstral distortion of an utterance, in dB."""
    return scores.ratio("mel_cepstral_distortion", "less", "distortion")


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return the root mean squared error of the logarithm of the pitch."""
    return [Score("log_f0_rmse", "less", _rmse)]


def _rmse(columns: Columns, weights: Floats) -> float:
    return float(np.sqrt(weights @ columns["squares"] / max(float(weights @ columns["voiced"]), 1e-12)))


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: SynthesisParams
) -> dict[str, float]:
    """Compute metrics; write spectrograms, alignments, a table of all texts, and some of them as sound.

    Args:
        model: The network, on the CPU and in evaluation mode.
        predictions: From `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets plots/{spectrograms,alignments}.png, examples/utterances.csv, and examples/<number>-recorded.wav
            and <number>-synthesised.wav.
        params: Unused.
    """
    assert isinstance(model, Voice), "alignments need its parts"
    batches, facts, note = list(predictions), _facts(prepared.manifest), prepared.manifest.note
    sounds, table = _sounds(batches), _outcomes(_sounds(batches), prepared)
    texts, recorded = texts_of(prepared.folder, "test", TEXT), _Recorded(prepared)
    hop = recorded.spectra.hop / facts.rate
    pairs = [
        pictures.Pair(texts[index], recorded.bands(recorded.sounds[index]), recorded.bands(sounds[index]), hop)
        for index in spread(len(texts), DRAWN).tolist()
    ]
    figures.save(pictures.spectrograms(pairs), out / "plots" / "spectrograms.png", note)
    figures.save(pictures.alignments(_alignments(model, prepared, texts)), out / "plots" / "alignments.png", note)
    _write(out / "examples", texts, sounds, recorded, table)
    every = np.ones(len(texts))
    errors = torch.cat([(batch["duration"] - batch["spoken"]).abs()[batch["spoken"] > 0] for batch in batches])
    said = sum(map(len, sounds))
    measured = (score(prepared.manifest), *further_scores(prepared.manifest))
    return {
        **{each.name: each.of(table.columns, every) for each in measured},
        "mel_cepstral_distortion_of_mean": float(table.columns["of_mean"].mean()),
        "duration_error": float(errors.mean()) * hop,
        "length_ratio": said / int(recorded.sounds.shapes.sum()),
        "real_time_factor": _real_time_factor(model, prepared),
        **_by_length(table),
    }


def _by_length(table: Outcomes) -> dict[str, float]:
    names = np.array(table.groups["length"])
    return {
        f"mel_cepstral_distortion/{name}": float(table.columns["distortion"][names == name].mean())
        for name in length_bands.NAMES
        if (names == name).any()
    }


@torch.inference_mode()
def _real_time_factor(model: Voice, prepared: Prepared) -> float:
    """Return the seconds that one thread takes for a second of speech, from characters to samples."""
    targets = load_split(prepared.folder, "test").ragged[TARGET]
    chosen = [targets[index][None] for index in spread(len(targets), TIMED).tolist()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        synthesised(model, chosen[0])  # what is loaded at the first call does not count
        begin = time.perf_counter()
        samples = sum(len(synthesised(model, target).sound) for target in chosen)
        seconds = time.perf_counter() - begin
    finally:
        torch.set_num_threads(threads)
    return seconds * _facts(prepared.manifest).rate / samples


@torch.inference_mode()
def _alignments(model: Voice, prepared: Prepared, texts: Sequence[str]) -> list[pictures.Alignment]:
    split, found = load_split(prepared.folder, "test"), []
    hop = model.spectra.hop / _facts(prepared.manifest).rate
    for index in spread(len(texts), ALIGNED).tolist():
        own = aligned(model, split.__getitems__(torch.tensor([index])))
        length = torch.tensor([own.scores.shape[2]])
        shares = alignment.posterior(own.scores, own.frames, length)[0][0].numpy()
        found.append(pictures.Alignment(f" {texts[index]} ", shares, own.found[0].numpy(), hop))
    return found


def _write(
    folder: Path, texts: Sequence[str], sounds: Sequence[Tensor], recorded: _Recorded, table: Outcomes
) -> None:
    """Write a table of all texts, and some of them as sound."""
    rate = recorded.facts.rate
    with (folder / "utterances.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "text", "mel_cepstral_distortion", "seconds", "recorded_seconds"])
        for index, (name, text, sound) in enumerate(zip(table.samples, texts, sounds, strict=True)):
            seconds = [round(len(each) / rate, 3) for each in (sound, recorded.sounds[index])]
            writer.writerow([name, text, round(float(table.columns["distortion"][index]), 4), *seconds])
    for index in spread(len(texts), SAMPLES).tolist():
        for name, sound in (("recorded", recorded.sounds[index]), ("synthesised", sounds[index])):
            (folder / f"{index:04}-{name}.wav").write_bytes(wav(sound, rate))


def wav(sound: Tensor, rate: int) -> bytes:
    """Return samples, int16 (N,), as the bytes of a wav file."""
    file = io.BytesIO()
    soundfile.write(file, sound.numpy(), rate, "PCM_16", format="WAV")
    return file.getvalue()


def further_metrics(
    predictions: Iterable[Batch], prepared: Prepared, sources: Sources, answering: Answering
) -> dict[str, float]:
    """Return the word error rates of the recogniser that `evaluate.recogniser` names.

    `wer` is that of synthesised texts, and `wer_of_recordings` that of the recordings of the same texts.

    `wer_of_understood` is that of synthesised texts whose recordings it understands without an error.

    Raises:
        PedigreeError: it is no recogniser of speech.
    """
    recognise, rate = answering(sources[RECOGNISER]), _facts(prepared.manifest).rate
    words = [normalised(text, WORDS).split() for text in texts_of(prepared.folder, "test", TEXT)]
    recorded = _Recorded(prepared).sounds
    said = np.array([len(each) for each in words], np.float64)
    wrong = [
        np.array([sum(edits.counts(*pair)) for pair in zip(words, heard, strict=True)], np.float64)
        for heard in (
            _heard(recognise, _sounds(predictions), rate, "synthesised"),
            _heard(recognise, [recorded[index] for index in range(len(words))], rate, "recorded"),
        )
    ]
    understood = wrong[1] == 0
    found = {"wer": wrong[0].sum() / said.sum(), "wer_of_recordings": wrong[1].sum() / said.sum()}
    if understood.any():
        found["wer_of_understood"] = wrong[0][understood].sum() / said[understood].sum()
    return {name: float(value) for name, value in found.items()}


def _heard(recognise: Predict, sounds: Sequence[Tensor], rate: int, what: str) -> list[list[str]]:
    """Return the words that a recogniser understands of each sound; none if it rejects it."""
    progress, found = Progress(log), list[list[str]]()
    for number, sound in enumerate(sounds, 1):
        (answer,) = recognise([{"audio": wav(sound, rate)}], {})
        if not isinstance(answer, Rejected) and "text" not in answer:
            raise PedigreeError(
                f"{RECOGNISER} names a version whose answers have no text: name one of speech_to_text"
            )
        found.append([] if isinstance(answer, Rejected) else str(answer["text"]).split())
        progress.say(f"{number:,} of {len(sounds):,} {what} utterances recognised")
    return found
