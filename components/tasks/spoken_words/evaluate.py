"""Evaluation on the test split: accuracy by word, by speaker and in noise."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from components import figures
from components.classification import report
from components.contracts import Batch, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import ingest
from components.tasks.spoken_words.model import SpeechModel
from components.tasks.spoken_words.params import SpeechParams
from components.tasks.spoken_words.prepare import SpeechFacts, load_split
from components.tasks.spoken_words.train import LEVELS
from components.tasks.spoken_words.words import speakers_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 30
"""Maximum number of speakers with individual metrics, and with bars in the figure."""


@dataclass(frozen=True)
class Speaker:
    """The accuracy for one speaker."""

    name: str
    clips: int
    accuracy: float


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: SpeechParams
) -> dict[str, float]:
    """Compute the metrics of predictions on the test split; write plots/ and examples/ below the folder `out`.

    In addition to the metrics of `report.evaluate`, there are `accuracy_20db`, `_10db` and `_0db` in noise. If file
    names identify speakers, there are also `mean_speaker_accuracy`, the unweighted mean over speakers, and
    `accuracy_by_speaker/<name>` for up to 30 speakers.

    Args:
        model: The network, whose log-mel spectrograms are the pictures of mistakes.
        predictions: Batches from `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets the files of `report.evaluate`, and noise.png, speakers.png and speakers.csv.
        params: Unused.

    Raises:
        PedigreeError: a logit is not a finite number.
    """
    facts, note = SpeechFacts.model_validate(prepared.manifest.facts), prepared.manifest.note
    files = ingest.file_names(prepared.folder, "test")
    clips = load_split(prepared.folder, "test")["clip"]  # (N, samples)
    log_mel = cast(SpeechModel, model).log_mel

    @torch.inference_mode()
    def picture(index: int) -> NDArray[Any]:
        frames = log_mel(clips[index : index + 1])[0].numpy()  # (frames, mels)
        square = frames.repeat(max(1, round(len(frames) / frames.shape[1])), 1)  # approximately
        return np.flipud(square.T)  # low frequencies at the bottom

    samples = report.Samples(facts.classes, files, picture, "clip", note)
    batch = report.joined(predictions)
    metrics = report.evaluate(batch, samples, out)
    correct = report.judge(batch["logits"], batch["label"]).correct.numpy()
    noisy = _accuracy_in_noise(batch)
    figures.save(_noise_figure({"clean": metrics["accuracy"]} | noisy), out / "plots" / "noise.png", note)
    metrics |= {f"accuracy_{level}": value for level, value in noisy.items()}
    if facts.speaker:
        speakers = by_speaker(correct, speakers_of(files, facts.speaker))
        _write(speakers, out / "examples" / "speakers.csv")
        figures.save(_speakers_figure(speakers), out / "plots" / "speakers.png", note)
        metrics |= _speaker_metrics(speakers)
    return metrics


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: SpeechParams) -> Outcomes:
    """Return whether each test clip is recognised; the clips of a speaker form a cluster."""
    classes = SpeechFacts.model_validate(prepared.manifest.facts).classes
    return report.outcomes(report.joined(predictions), classes, *_files(prepared))


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`."""
    classes = SpeechFacts.model_validate(prepared.manifest.facts).classes
    label = load_split(prepared.folder, "test")["label"]
    return report.outcomes_from(answers, "word", label, classes, *_files(prepared))


def _files(prepared: Prepared) -> tuple[Sequence[str], Sequence[str]]:
    """Return the file of each test clip, and its speaker if file names tell it."""
    files = ingest.file_names(prepared.folder, "test")
    pattern = SpeechFacts.model_validate(prepared.manifest.facts).speaker
    return files, speakers_of(files, pattern) if pattern else ()


def score(manifest: Manifest) -> Score:
    """Return accuracy."""
    return report.SCORE


def by_speaker(correct: NDArray[np.bool_], speakers: Sequence[str]) -> list[Speaker]:
    """Return the accuracy for each speaker, lowest first.

    Args:
        correct: (N,), whether each prediction is correct.
        speakers: The speaker of each of the N clips.
    """
    names, indices = np.unique(np.array(speakers, dtype=object), return_inverse=True)
    clips, hits = np.bincount(indices), np.bincount(indices, weights=correct)
    columns = names.tolist(), clips.tolist(), (hits / clips).tolist()
    return sorted(
        (Speaker(*each) for each in zip(*columns, strict=True)),
        key=lambda speaker: (speaker.accuracy, speaker.name),
    )


def _speaker_metrics(speakers: Sequence[Speaker]) -> dict[str, float]:
    metrics = {"mean_speaker_accuracy": float(np.mean([speaker.accuracy for speaker in speakers]))}
    if len(speakers) <= NAMED:
        names = report.metric_names([speaker.name for speaker in speakers])
        metrics |= {
            f"accuracy_by_speaker/{name}": speaker.accuracy for name, speaker in zip(names, speakers, strict=True)
        }
    return metrics


def _accuracy_in_noise(predictions: Batch) -> dict[str, float]:
    label = predictions["label"]
    answers = {f"{level}db": report.judge(predictions[f"logits_{level}db"], label) for level in LEVELS}
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
    """Draw a bar for each accuracy, with the first on top."""
    figure = figures.blank(7, 1.4 + 0.28 * len(accuracies))
    figure.suptitle(title)
    axes = figure.add_subplot(xlabel="Accuracy", xlim=(0, 1.1), xticks=np.linspace(0, 1, 6))
    rows, values = range(len(accuracies)), list(accuracies.values())
    axes.bar_label(axes.barh(rows, values, color="lightsteelblue"), fmt="{:.1%}", padding=3, fontsize=8)
    axes.set_yticks(rows, labels=list(accuracies), parse_math=False)
    axes.invert_yaxis()
    return figure
