"""How well words are recognised on the untouched test split: by word, by speaker and in noise."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from components import classification, figures, intake
from components.contracts import Batch, Outcomes, Prepared
from components.speech.model import SpeechModel
from components.speech.params import SpeechParams
from components.speech.prepare import SpeechFacts, load_split
from components.speech.train import LEVELS
from components.speech.words import speakers_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 30
"""Speakers up to which each has a metric of its own, and a bar in the figure."""


@dataclass(frozen=True)
class Speaker:
    """How well one person is understood."""

    name: str
    clips: int
    accuracy: float


def evaluate(
    model: nn.Module, predictions: Batch, prepared: Prepared, out: Path, params: SpeechParams
) -> dict[str, float]:
    """Measure the predictions on the test split; write plots/ and examples/ below the folder `out`.

    Beside what `classification.evaluate` measures there are `accuracy_20db`, `_10db` and `_0db` in noise,
    where files' names tell who speaks, `mean_speaker_accuracy`, to which all speakers count alike, and
    `accuracy_by_speaker/<name>` for up to 30.

    Args:
        model: The network, whose log-mel spectrograms are the pictures of mistakes.
        predictions: As from `train.predict`, on the CPU, in the split's order.
        prepared: The prepared data that the predictions were made on.
        out: Filled as `classification.evaluate` says; gets noise.png, speakers.png and speakers.csv too.
        params: Not used.

    Raises:
        PedigreeError: a logit is not a finite number.
    """
    facts, note = SpeechFacts.model_validate(prepared.manifest.facts), prepared.manifest.note
    files = intake.file_names(prepared.folder, "test")
    clips = load_split(prepared.folder, "test")["clip"]  # (N, samples)
    log_mel = cast(SpeechModel, model).log_mel

    @torch.inference_mode()
    def picture(index: int) -> NDArray[Any]:
        frames = log_mel(clips[index : index + 1])[0].numpy()  # (frames, mels)
        tall = frames.repeat(max(1, round(len(frames) / frames.shape[1])), 1)  # nearly a square
        return np.flipud(tall.T)  # low frequencies at the bottom

    samples = classification.Samples(facts.classes, files, picture, "clip", note)
    metrics = classification.evaluate(predictions, samples, out)
    correct = classification.judge(predictions["logits"], predictions["label"]).correct.numpy()
    noisy = _accuracy_in_noise(predictions)
    figures.save(_noise_figure({"clean": metrics["accuracy"]} | noisy), out / "plots" / "noise.png", note)
    metrics |= {f"accuracy_{level}": value for level, value in noisy.items()}
    if facts.speaker:
        speakers = by_speaker(correct, speakers_of(files, facts.speaker))
        _write(speakers, out / "examples" / "speakers.csv")
        figures.save(_speakers_figure(speakers), out / "plots" / "speakers.png", note)
        metrics |= _speaker_metrics(speakers)
    return metrics


def outcomes(predictions: Batch, prepared: Prepared) -> Outcomes:
    """Return what each test clip adds to the accuracy; clips of one speaker are of one source."""
    facts = SpeechFacts.model_validate(prepared.manifest.facts)
    files = intake.file_names(prepared.folder, "test")
    sources = speakers_of(files, facts.speaker) if facts.speaker else ()
    return classification.outcomes(predictions, facts.classes, files, sources)


def by_speaker(correct: NDArray[np.bool_], speakers: Sequence[str]) -> list[Speaker]:
    """Return the accuracy of each speaker, the least understood first.

    Args:
        correct: (N,), whether each answer is right.
        speakers: Who spoke each clip, N.
    """
    names, places = np.unique(np.array(speakers, dtype=object), return_inverse=True)
    clips, right = np.bincount(places), np.bincount(places, weights=correct)
    found = [Speaker(*each) for each in zip(names.tolist(), clips.tolist(), (right / clips).tolist(), strict=True)]
    return sorted(found, key=lambda speaker: (speaker.accuracy, speaker.name))


def _speaker_metrics(speakers: Sequence[Speaker]) -> dict[str, float]:
    metrics = {"mean_speaker_accuracy": float(np.mean([speaker.accuracy for speaker in speakers]))}
    if len(speakers) <= NAMED:
        names = classification.metric_names([speaker.name for speaker in speakers])
        metrics |= {
            f"accuracy_by_speaker/{name}": speaker.accuracy for name, speaker in zip(names, speakers, strict=True)
        }
    return metrics


def _accuracy_in_noise(predictions: Batch) -> dict[str, float]:
    label = predictions["label"]
    answers = {f"{level}db": classification.judge(predictions[f"logits_{level}db"], label) for level in LEVELS}
    return {level: float(answer.correct.double().mean()) for level, answer in answers.items()}


def _write(speakers: Sequence[Speaker], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["speaker", "clips", "accuracy"])
        table.writerows([speaker.name, speaker.clips, round(speaker.accuracy, 6)] for speaker in speakers)


def _speakers_figure(speakers: Sequence[Speaker]) -> "Figure":
    shown = {f"{speaker.name[:40]} ({speaker.clips} clips)": speaker.accuracy for speaker in speakers[:NAMED]}
    which = f": the lowest {NAMED} of {len(speakers):,}" if len(speakers) > NAMED else ""
    return _bars(shown, f"Accuracy by speaker{which}")


def _noise_figure(accuracies: Mapping[str, float]) -> "Figure":
    shown = {level.replace("db", " dB signal to noise"): value for level, value in accuracies.items()}
    return _bars(shown, "Accuracy in pink noise")


def _bars(accuracies: Mapping[str, float], title: str) -> "Figure":
    """Draw a bar for each accuracy, the first on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.4 + 0.28 * len(accuracies)), layout="constrained")
    figure.suptitle(title)
    axes = figure.add_subplot(xlabel="Accuracy", xlim=(0, 1.1), xticks=np.linspace(0, 1, 6))
    places, values = range(len(accuracies)), list(accuracies.values())
    axes.bar_label(axes.barh(places, values, color="lightsteelblue"), fmt="{:.1%}", padding=3, fontsize=8)
    axes.set_yticks(places, labels=list(accuracies), parse_math=False)
    axes.invert_yaxis()
    return figure
