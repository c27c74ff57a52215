import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from components.classification import judge, measure
from components.contracts import Manifest, Prepared
from components.params import read, validate
from components.vision.evaluate import evaluate
from components.vision.params import VisionParams

PARAMS = validate(VisionParams, read(Path(__file__).parents[2] / "params.yaml"), ("tasks", "vision"))
COLOURS = np.array([(10, 200, 30), (200, 30, 90), (20, 40, 220)], np.uint8)
GREYS = COLOURS[:, :1]


def write_test_split(folder, labels, classes, images=None, files=None):
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
    }
    return Prepared(folder, Manifest(task="vision", splits={}, refused=[], facts=facts))


def run(tmp_path, logits, labels, classes, images=None, files=None):
    prepared = write_test_split(tmp_path / "prepared", labels, classes, images, files)
    for folder in ("plots", "examples"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    predictions = {"logits": logits, "label": torch.tensor(labels)}
    return evaluate(nn.Identity(), predictions, prepared, tmp_path / "out", PARAMS), tmp_path / "out"


def test_images_are_measured_as_every_classifiers_samples_are(tmp_path):
    logits, labels, classes = torch.randn(60, 3), [0, 1, 2] * 20, ["ant", "bee", "cow"]
    metrics, _ = run(tmp_path, logits, labels, classes)
    assert metrics == measure(judge(logits, torch.tensor(labels)), classes)


def test_the_tables_name_the_image_files_in_the_order_of_the_split(tmp_path):
    files = ["test/cat/x, y.png", "test/cat/naïve.png", "test/dog/z.png"]
    logits = torch.tensor([[0.75, 0.25], [0.4, 0.6], [0.1, 0.9]]).log()
    _, out = run(tmp_path, logits, [0, 0, 1], ["cat", "dog"], files=files)
    with (out / "examples/predictions.csv").open(newline="", encoding="utf-8") as text:
        assert [row["file"] for row in csv.DictReader(text)] == files
    assert json.loads((out / "examples/mistakes.json").read_text()) == [
        {"file": "test/cat/naïve.png", "actual": "cat", "predicted": "dog", "probability": 0.6}
    ]


@pytest.mark.parametrize("colours", [COLOURS, GREYS], ids=["colour", "grey"])
def test_the_gallery_shows_the_image_of_the_mistake(tmp_path, colours):
    images = np.broadcast_to(colours[:, :, None, None], (3, colours.shape[1], 32, 32))
    logits = 4 * torch.tensor([[1.0, 0.0]] * 3)
    _, out = run(tmp_path, logits, [0, 1, 0], ["a", "b"], images=images)
    with Image.open(out / "examples/mistakes.png") as picture:
        drawn = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert [int((drawn == colour).all(1).sum()) > 10_000 for colour in colours] == [False, True, False]
