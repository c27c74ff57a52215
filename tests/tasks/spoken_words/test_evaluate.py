import csv
import json

import numpy as np
import pytest
import torch
from mlflow.utils.validation import _validate_metric_name
from PIL import Image

from components import figures
from components.contracts import Manifest, Prepared
from components.errors import PedigreeError
from components.tasks.spoken_words.evaluate import by_speaker, evaluate, outcomes, score
from components.tasks.spoken_words.model import build_model
from components.tasks.spoken_words.train import LEVELS
from components.trust.intervals import value
from tests.drawing import draw_only, keep_titles
from tests.tasks.spoken_words.test_model import clips
from tests.tasks.spoken_words.values import parameters

WORDS = ["no", "yes"]
FILES = [
    "plots/confusion.png",
    "plots/reliability.png",
    "plots/per_class.png",
    "plots/speakers.png",
    "plots/noise.png",
    "examples/mistakes.png",
]


def sure_of(predicted):
    return 4 * torch.nn.functional.one_hot(torch.tensor(predicted), 2).float()


def write_test_split(folder, labels, speakers, note="", pattern=None):
    np.save(folder / "test.clips.npy", clips(len(labels), 8000).numpy())
    np.save(folder / "test.labels.npy", np.array(labels, np.int64))
    names = [f"{WORDS[label]}/{who}_{i}.wav" for i, (label, who) in enumerate(zip(labels, speakers, strict=True))]
    (folder / "test.files.txt").write_text("".join(f"{name}\n" for name in names))
    params = parameters("train.model.hidden=8", "prepare.rate=8000")
    facts = {
        "classes": WORDS,
        "rate": 8000,
        "seconds": 1.0,
        "speaker": params.prepare.speaker if pattern is None else pattern,
        "counts": {},
        "speakers": {},
    }
    return params, Prepared(folder, Manifest(task="spoken_words", splits={}, rejected=[], facts=facts, note=note))


@pytest.fixture
def run(tmp_path):
    """Evaluate what was predicted for the test clips of these speakers, in all noise the same unless given."""

    def run(predicted, labels, speakers, note="", **noisy):
        folder, out = tmp_path / "prepared", tmp_path / "out"
        for path in (folder, out, out / "plots", out / "examples"):
            path.mkdir(exist_ok=True)
        params, prepared = write_test_split(folder, labels, speakers, note)
        found = predictions(predicted, labels, **noisy)
        return evaluate(build_model(params, prepared.manifest).eval(), found, prepared, out, params), out

    return run


def predictions(predicted, labels, **noisy):
    """What was predicted, as it is read from its files: in batches of 3."""
    whole = {"logits": sure_of(predicted), "label": torch.tensor(labels)}
    whole |= {f"logits_{n}db": sure_of(noisy.get(f"at_{n}", predicted)) for n in LEVELS}
    parts = {name: tensor.split(3) for name, tensor in whole.items()}
    return [dict(zip(parts, part, strict=True)) for part in zip(*parts.values(), strict=True)]


def test_accuracy_is_reported_for_all_for_each_word_for_each_speaker_and_in_noise(run, monkeypatch):
    draw_only(monkeypatch)
    labels = [0, 0, 0, 1, 1, 1, 1, 1]
    speakers = ["ann", "ann", "bob", "ann", "bob", "bob", "bob", "cy"]
    metrics, _ = run(
        [0, 0, 1, 1, 1, 1, 0, 1], labels, speakers, at_20=labels, at_10=[0] * 8, at_0=[1 - n for n in labels]
    )
    expected = {
        "accuracy": 6 / 8,
        "recall/no": 2 / 3,
        "recall/yes": 4 / 5,
        "accuracy_by_speaker/ann": 1,
        "accuracy_by_speaker/bob": 2 / 4,
        "accuracy_by_speaker/cy": 1,
        "mean_speaker_accuracy": 2.5 / 3,
        "accuracy_20db": 1,
        "accuracy_10db": 3 / 8,
        "accuracy_0db": 0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    for name in metrics:
        _validate_metric_name(f"test/{name}")


def test_every_figure_and_table_is_written(run):
    _, out = run([0, 1, 0], [0, 1, 1], ["ann", "ann", "bob"])
    for name in FILES:
        Image.open(out / name).verify()
    with (out / "examples/speakers.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"speaker": "bob", "clips": "1", "accuracy": "0.0"},
            {"speaker": "ann", "clips": "2", "accuracy": "1.0"},
        ]
    assert [m["file"] for m in json.loads((out / "examples/mistakes.json").read_text())] == ["yes/bob_2.wav"]


def test_the_least_understood_speaker_comes_first_and_equal_ones_by_name():
    found = by_speaker(np.array([True, False, True, True, True]), ["zoe", "bob", "bob", "ann", "ann"])
    assert [(s.name, s.clips, s.accuracy) for s in found] == [("bob", 2, 0.5), ("ann", 2, 1.0), ("zoe", 1, 1.0)]


def test_of_many_speakers_only_the_mean_is_a_metric_and_all_are_in_the_table(run, monkeypatch):
    draw_only(monkeypatch)
    speakers = [f"speaker{i}" for i in range(31)]
    metrics, out = run([0] * 31, [0] * 30 + [1], speakers)
    assert metrics["mean_speaker_accuracy"] == pytest.approx(30 / 31)
    assert not [name for name in metrics if name.startswith("accuracy_by_speaker/")]
    assert len((out / "examples/speakers.csv").read_text().splitlines()) == 32


def test_speakers_without_a_name_are_their_files_and_their_metrics_have_names_that_mlflow_takes(run, monkeypatch):
    draw_only(monkeypatch)
    metrics, _ = run([0, 1], [0, 1], ["päul*", "päul?"])
    assert "accuracy_by_speaker/päul_" in metrics
    assert "accuracy_by_speaker/päul__2" in metrics
    for name in metrics:
        _validate_metric_name(f"test/{name}")


@pytest.mark.parametrize("note", ["", "synthetic speech"])
def test_every_figure_says_whether_the_speech_is_synthetic(run, monkeypatch, note):
    titles = keep_titles(monkeypatch)
    run([0, 1, 0], [0, 1, 1], ["ann", "ann", "bob"], note)
    assert len(titles) == len(FILES)
    for each in titles.values():
        assert ("synthetic speech" in " ".join(each)) == bool(note)


def test_a_mistake_is_shown_as_its_log_mel_with_low_frequencies_at_the_bottom(run, monkeypatch):
    draw_only(monkeypatch)
    tiles = []
    monkeypatch.setattr(figures, "gallery", lambda shown, title, empty: tiles.extend(shown) or figures.blank(1, 1))
    low = 8000 * torch.sin(torch.arange(8000) * 0.05)  # 64 Hz, loud at the beginning
    low[4000:] = 0
    monkeypatch.setattr(
        "tests.tasks.spoken_words.test_evaluate.clips", lambda count, samples: low.to(torch.int16)[None]
    )
    run([1], [0], ["ann"])
    (tile,) = tiles
    bands, frames = tile.image.shape
    assert 0.5 < bands / frames < 2
    loud = tile.image[:, : frames // 3].mean(1)
    assert loud[-bands // 8 :].mean() > loud[: bands // 2].mean()
    assert "no → yes" in tile.caption


def test_outputs_that_are_not_numbers_are_rejected_with_what_to_do(run, monkeypatch):
    monkeypatch.setattr(
        "tests.tasks.spoken_words.test_evaluate.sure_of", lambda predicted: torch.full((len(predicted), 2), np.nan)
    )
    with pytest.raises(PedigreeError, match=r"2 of 2 test samples.*lower train\.optimizer\.lr"):
        run([0, 1], [0, 1], ["ann", "bob"])


def test_the_outcomes_are_one_row_a_clip_by_its_file_its_word_and_its_speaker_and_their_score_is_accuracy(tmp_path):
    labels, predicted, speakers = [0, 0, 0, 1, 1], [0, 1, 0, 1, 0], ["ann", "ann", "bob", "bob", "cy"]
    params, prepared = write_test_split(tmp_path, labels, speakers)
    found = outcomes(predictions(predicted, labels), prepared, params)
    assert found.samples == (tmp_path / "test.files.txt").read_text().splitlines()
    assert found.columns["correct"].tolist() == [1, 0, 1, 1, 0]
    assert found.groups == {"class": ["no", "no", "no", "yes", "yes"]}
    assert list(found.clusters) == speakers
    accuracy = score(prepared.manifest)
    assert (accuracy.name, accuracy.better, value(found, accuracy)) == ("accuracy", "more", 3 / 5)


def test_clips_of_which_nobody_knows_the_speaker_are_in_no_cluster(tmp_path):
    params, prepared = write_test_split(tmp_path, [0, 1], ["ann", "bob"], pattern="")
    assert tuple(outcomes(predictions([0, 1], [0, 1]), prepared, params).clusters) == ()
