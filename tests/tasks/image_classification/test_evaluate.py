import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from components.classification.report import judge, measure
from components.contracts import Manifest, Prepared
from components.images.labels.folders import GROUP
from components.params import read, validate
from components.tasks.image_classification.evaluate import evaluate, outcomes, outcomes_from, score
from components.tasks.image_classification.params import VisionParams
from components.trust.intervals import value
from tests.drawing import draw_only

PARAMS = validate(VisionParams, read(Path(__file__).parents[2] / "params.yaml"), ("models", "digits"))
COLOURS = np.array([(10, 200, 30), (200, 30, 90), (20, 40, 220)], np.uint8)
GREYS = COLOURS[:, :1]


def write_test_split(folder, labels, classes, images=None, files=None, **more):
    folder.mkdir()
    images = np.zeros((len(labels), 1, 28, 28), np.uint8) if images is None else images
    files = files or [f"test/{classes[label]}/{i:05d}.png" for i, label in enumerate(labels)]
    np.save(folder / "test.images.npy", images)
    np.save(folder / "test.labels.npy", np.asarray(labels, np.int64))
    (folder / "test.files.txt").write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    facts = {
        "classes": list(classes),
        "channels": images.shape[1],
        "size": images.shape[2],
        "mean": [0.5] * images.shape[1],
        "std": [0.5] * images.shape[1],
        "counts": {"test": {name: list(labels).count(i) for i, name in enumerate(classes)}},
        **more,
    }
    return Prepared(folder, Manifest(task="image_classification", splits={}, rejected=[], facts=facts))


def run(tmp_path, logits, labels, classes, images=None, files=None):
    prepared = write_test_split(tmp_path / "prepared", labels, classes, images, files)
    for folder in ("plots", "examples"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    predictions = batches(logits, labels)
    return evaluate(nn.Identity(), predictions, prepared, tmp_path / "out", PARAMS), tmp_path / "out"


def batches(logits, labels):
    """Predictions as they are read from their files, in batches of 7."""
    pairs = zip(logits.split(7), torch.tensor(labels).split(7), strict=True)
    return [{"logits": some, "label": label} for some, label in pairs]


def test_images_are_measured_as_every_classifiers_samples_are(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    logits, labels, classes = torch.randn(60, 3), [0, 1, 2] * 20, ["ant", "bee", "cow"]
    metrics, _ = run(tmp_path, logits, labels, classes)
    assert metrics == measure(judge(logits, torch.tensor(labels)), classes)


def test_the_tables_name_the_image_files_in_the_order_of_the_split(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    files = ["test/cat/x, y.png", "test/cat/naïve.png", "test/dog/z.png"]
    logits = torch.tensor([[0.75, 0.25], [0.4, 0.6], [0.1, 0.9]]).log()
    _, out = run(tmp_path, logits, [0, 0, 1], ["cat", "dog"], files=files)
    with (out / "examples/predictions.csv").open(newline="", encoding="utf-8") as text:
        assert [row["file"] for row in csv.DictReader(text)] == files
    assert json.loads((out / "examples/mistakes.json").read_text()) == [
        {"file": "test/cat/naïve.png", "actual": "cat", "predicted": "dog", "probability": 0.6}
    ]


@pytest.mark.parametrize("colours", [COLOURS, GREYS], ids=["colour", "grey"])
def test_the_gallery_shows_the_image_of_the_mistake(tmp_path, monkeypatch, colours):
    draw_only(monkeypatch, "mistakes")
    images = np.broadcast_to(colours[:, :, None, None], (3, colours.shape[1], 32, 32))
    logits = 4 * torch.tensor([[1.0, 0.0]] * 3)
    _, out = run(tmp_path, logits, [0, 1, 0], ["a", "b"], images=images)
    with Image.open(out / "examples/mistakes.png") as picture:
        drawn = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert [int((drawn == colour).all(1).sum()) > 10_000 for colour in colours] == [False, True, False]


def test_the_outcomes_are_one_row_an_image_by_its_file_and_its_class_and_their_score_is_accuracy(tmp_path):
    logits, labels, classes = torch.randn(60, 3), [0, 1, 2] * 20, ["ant", "bee", "cow"]
    prepared = write_test_split(tmp_path / "prepared", labels, classes)
    found = outcomes(batches(logits, labels), prepared, PARAMS)
    assert found.samples == (tmp_path / "prepared" / "test.files.txt").read_text().splitlines()
    assert found.columns["correct"].tolist() == (logits.argmax(1) == torch.tensor(labels)).double().tolist()
    assert found.groups == {"class": [classes[label] for label in labels]}
    assert (found.sample, tuple(found.clusters)) == (None, ())
    accuracy = score(prepared.manifest)
    assert (accuracy.name, accuracy.better) == ("accuracy", "more")
    assert value(found, accuracy) == measure(judge(logits, torch.tensor(labels)), classes)["accuracy"]


def test_images_of_a_group_are_one_source_to_the_gate_where_test_was_drawn_by_groups(tmp_path):
    files = ["cat/p1_1.png", "cat/p1_2.png", "dog/p1_7.png", "dog/p2_1.png", "dog/alone.png"]
    labels, classes = [0, 0, 1, 1, 1], ["cat", "dog"]
    drawn = write_test_split(tmp_path / "drawn", labels, classes, files=files, group=GROUP)
    answers = [{"label": classes[label]} for label in labels]
    expected = ["p1", "p1", "p1", "p2", "dog/alone.png"]
    assert outcomes(batches(torch.eye(2)[labels], labels), drawn, PARAMS).clusters == expected
    assert outcomes_from(answers, drawn).clusters == expected
    given = write_test_split(tmp_path / "given", labels, classes, files=files)
    assert tuple(outcomes_from(answers, given).clusters) == ()
