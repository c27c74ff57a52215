"""Images of patients: two classes by a threshold, several labels, ensembles, and the gate on sensitivity."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from components import models
from components.adapters import mlflow_store
from components.classification import ranking
from components.contracts import Evaluated, Prepared, Trained, Worker
from components.datasets import ingest
from components.errors import PedigreeError
from components.images.decoding.dicom import picture
from components.models import Model
from components.stages import evaluate, prepare, register, train
from components.tasks.image_classification import TASK
from components.tasks.image_classification.prepare import VisionFacts, load_split
from components.training import inference, loop, model_files
from components.trust import intervals
from tests.drawing import draw_only

CPU = torch.device("cpu")
BASE = Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small.dcm"
BINARY = ("prepare.positive=ill", "prepare.score=auc", "train.model.members=2", "train.class_weights=balanced")


def pixels(random: np.random.Generator, labels: str) -> np.ndarray:
    """Return noise with a bright square in a corner for each label."""
    image = random.integers(60, 140, (32, 32)).astype(np.uint8)
    for label, corner in (("ill", (2, 2)), ("torn", (20, 20))):
        if label in labels:
            image[corner[0] : corner[0] + 9, corner[1] : corner[1] + 9] += 60
    return image


def save(path: Path, image: np.ndarray) -> None:
    """Write a PNG, or a DICOM file with the same levels, inverted as MONOCHROME1."""
    if path.suffix == ".png":
        Image.fromarray(image).save(path)
        return
    dataset = pydicom.dcmread(BASE)
    dataset.PatientName = "Canary^Ann"
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.Rows, dataset.Columns = image.shape
    dataset.PixelData = (255 - image).tobytes()
    dataset["PixelData"].VR = "OW"
    del dataset.WindowCenter, dataset.WindowWidth, dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue
    dataset.save_as(path)


def write(
    raw: Path, choices: tuple[str, ...], patients: int = 18, suffixes: tuple[str, ...] = (".png", ".dcm")
) -> None:
    """Write a manifest with eight images of each patient."""
    random = np.random.default_rng(0)
    raw.mkdir()
    rows = []
    for patient in range(patients):
        for index in range(8):
            labels = choices[(patient + index) % len(choices)]
            file = f"{patient:02d}_{index}{suffixes[index % len(suffixes)]}"
            save(raw / file, pixels(random, labels))
            rows.append((file, labels, f"Canary {patient}"))
    with (raw / "scans.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "patient"), *rows])


@dataclass
class Run:
    model: Model
    raw: Path
    prepared: Prepared
    trained: Trained
    evaluated: Evaluated

    @property
    def facts(self) -> VisionFacts:
        return VisionFacts.model_validate(self.prepared.manifest.facts)


def load(project: Path, *settings: str) -> Model:
    return replace(models.load(project, "digits", settings=settings), name="scans")


def run(project: Path, raw: Path, out: Path, *settings: str) -> Run:
    """Run three stages of a model on a raw folder."""
    mlflow_store.connect(project)
    model = load(project, *settings)
    prepared = prepare.prepare(model, raw, out / "prepared")
    trained = train.train(model, prepared, out / "model")
    with pytest.MonkeyPatch.context() as patch:
        draw_only(patch, "roc", "precision_recall")
        evaluated = evaluate.evaluate(model, prepared, trained, out / "evaluation")
    return Run(model, raw, prepared, trained, evaluated)


@pytest.fixture(scope="module")
def binary(project, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("binary")
    write(folder / "raw", ("ill", "healthy"))
    return run(project, folder / "raw", folder, *BINARY)


@pytest.fixture(scope="module")
def several(project, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("several")
    write(folder / "raw", ("ill", "", "torn|ill", "torn"), suffixes=(".png",))
    return run(project, folder / "raw", folder, "prepare.score=auc", "train.model.members=2")


def test_what_is_prepared_is_known_by_its_facts(binary):
    facts = binary.facts
    assert (facts.format, facts.classes, facts.positive) == ("csv", ["healthy", "ill"], "ill")
    assert (facts.patients, facts.dicom, facts.several) == (True, True, False)
    assert TASK.served(binary.prepared.manifest, binary.model.params).requirements == ("pillow", "pydicom")


def test_no_patient_is_in_two_splits_and_none_is_named_anywhere(binary):
    files = {split: ingest.file_names(binary.prepared.folder, split) for split in ("train", "val", "test")}
    owners = {split: {file[:2] for file in names} for split, names in files.items()}
    assert not owners["train"] & owners["val"] | owners["val"] & owners["test"] | owners["test"] & owners["train"]
    for stage in (binary.prepared, binary.trained, binary.evaluated):
        for path in stage.folder.rglob("*"):
            assert not path.is_file() or b"Canary" not in path.read_bytes(), path


def test_a_dicom_file_and_a_png_become_the_same_pixels(tmp_path):
    image = pixels(np.random.default_rng(3), "ill")
    save(tmp_path / "x.dcm", image)
    assert np.array_equal(np.asarray(picture((tmp_path / "x.dcm").read_bytes(), 1)), image)


def test_the_threshold_is_chosen_on_validation_and_saved_with_the_weights(binary):
    network = model_files.rebuild(TASK, binary.trained.folder)
    val = load_split(binary.prepared.folder, "val")
    predicted = list(inference.predictions(TASK, binary.model.params, network, val, CPU))
    logits = torch.cat([batch["logits"] for batch in predicted])
    chosen = ranking.threshold((val["label"] == 1).double().numpy(), logits.double().softmax(1)[:, 1].numpy())
    saved = load_file(binary.trained.folder / model_files.WEIGHTS)["decision.threshold"].tolist()
    assert saved == pytest.approx([chosen])
    assert [binary.evaluated.metrics["threshold"]] == saved


def test_the_metrics_have_intervals_over_patients(binary):
    metrics = binary.evaluated.metrics
    names = ("auc", "accuracy", "average_precision", "sensitivity", "specificity", "sensitivity_at_95_specificity")
    for name in names:
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"], name
    assert evaluate.score_name(metrics) == "auc"
    found = evaluate.read_outcomes(binary.evaluated.folder)
    assert len(set(found.clusters)) < len(found.samples)
    assert intervals.value(found, ranking.AUC) == pytest.approx(metrics["auc"])
    assert {path.name for path in (binary.evaluated.folder / "plots").iterdir()} >= {
        "roc.png",
        "precision_recall.png",
    }


def served(result: Run) -> list[dict[str, Any]]:
    predict = model_files.load_predict(TASK, result.trained.folder)
    return predict(list(TASK.rows(result.prepared, lambda: result.raw)), {})


@pytest.mark.parametrize("kind", ["binary", "several"])
def test_served_answers_are_the_outcomes_of_evaluation(kind, request):
    result = request.getfixturevalue(kind)
    through = TASK.outcomes_from(served(result), result.prepared)
    written = evaluate.read_outcomes(result.evaluated.folder)
    for name, column in written.columns.items():
        np.testing.assert_allclose(through.columns[name], column, atol=1e-5)
    assert list(through.clusters) == list(written.clusters)


def test_an_answer_says_by_which_threshold(binary):
    for answer in served(binary):
        assert set(answer) == set(TASK.served(binary.prepared.manifest, binary.model.params).outputs)
        ill = answer["probabilities"]["ill"] >= answer["threshold"]
        assert answer["label"] == ("ill" if ill else "healthy")
        assert answer["probability"] == answer["probabilities"][answer["label"]]


@pytest.mark.parametrize(("least", "promoted"), [(0.0, True), (1.1, False)])
def test_the_gate_can_require_a_sensitivity(binary, project, tmp_path, least, promoted):
    mlflow_store.connect(project)
    settings = (f"register.gate.at_least.sensitivity={least}", "register.gate.at_least.accuracy=0")
    model = replace(load(project, *BINARY, *settings), name=f"scans-{int(promoted)}")
    registered = register.register(
        model, binary.prepared, binary.trained, binary.evaluated, tmp_path / "registered.json"
    )
    rules = {rule["rule"]: rule["passed"] for rule in registered.verdict}
    assert rules[f"sensitivity at least {least:g}"] is promoted
    assert ("champion" in registered.aliases) is promoted


def test_several_labels_are_prepared_as_targets_and_evaluated_each(several):
    label = load_split(several.prepared.folder, "train")["label"]
    assert label.dtype == torch.uint8
    assert several.facts.counts["train"] == dict(zip(["ill", "torn"], label.sum(0).tolist(), strict=True))
    metrics = several.evaluated.metrics
    assert {"auc/ill", "auc_low/torn", "sensitivity/torn", "threshold/ill", "exact_match"} <= metrics.keys()
    for answer in served(several):
        flagged = [name for name, p in answer["probabilities"].items() if p >= answer["thresholds"][name]]
        assert answer["labels"] == flagged


def test_other_targets_of_the_same_images_are_another_split(several, project, tmp_path):
    table = (several.raw / "scans.csv").read_text()
    raw = tmp_path / "raw"
    raw.mkdir()
    for file in several.raw.glob("*.png"):
        (raw / file.name).write_bytes(file.read_bytes())
    (raw / "scans.csv").write_text(table.replace(",torn,", ",ill,"))
    again = prepare.prepare(several.model, raw, tmp_path / "prepared").manifest
    assert again.splits["test"].sha256 != several.prepared.manifest.splits["test"].sha256


def test_training_an_ensemble_again_gives_bitwise_the_same_weights(binary, tmp_path):
    loop.fit(TASK, binary.model.params, binary.prepared, tmp_path, Worker(CPU))
    ours = (tmp_path / model_files.WEIGHTS).read_bytes()
    assert ours == (binary.trained.folder / model_files.WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("prepare.positive=sick",), "prepare.positive 'sick' is no class: set it to 'healthy' or 'ill'"),
        (
            ("prepare.score=auc",),
            "of two classes, AUC needs the one whose probability decides: set prepare.positive",
        ),
    ],
)
def test_a_positive_class_that_is_wrong_or_missing_is_named(binary, project, tmp_path, settings, message):
    with pytest.raises(PedigreeError, match=message):
        prepare.prepare(load(project, *settings), binary.raw, tmp_path / "out")


def test_a_positive_class_is_for_two_classes(several, project, tmp_path):
    with pytest.raises(PedigreeError, match="for two classes, and an image can have several labels: set it to ''"):
        prepare.prepare(load(project, "prepare.positive=ill"), several.raw, tmp_path / "out")


def test_a_label_that_all_or_no_training_images_have_is_named(several, project, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for file in several.raw.glob("*.png"):
        (raw / file.name).write_bytes(file.read_bytes())
    rows = (several.raw / "scans.csv").read_text().splitlines()
    every = [",".join([row.split(",")[0], f"all|{row.split(',')[1]}", row.split(",")[2]]) for row in rows[1:]]
    (raw / "scans.csv").write_text("\n".join([rows[0], *every]))
    with pytest.raises(PedigreeError, match="all training images, or none, have the label all"):
        prepare.prepare(several.model, raw, tmp_path / "out")


@pytest.mark.parametrize(("copies", "too_many"), [(1, False), (4, True)])
def test_rejected_images_of_one_npz_file_are_a_share_of_its_images(project, tmp_path, copies, too_many):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 28, 28), np.uint8)
    images[:copies] = images[50 : 50 + copies]  # training images that are test images, too
    parts = {"train": slice(0, 40), "val": slice(40, 50), "test": slice(50, 60)}
    arrays = {f"{name}_images": images[part] for name, part in parts.items()}
    arrays |= {f"{name}_labels": np.arange(60)[part] % 2 for name, part in parts.items()}
    raw = tmp_path / "raw"
    raw.mkdir()
    np.savez(raw / "some.npz", **arrays)
    if too_many:
        with pytest.raises(
            PedigreeError, match=r"4 of 60 files cannot be used, more than prepare.max_rejected 0.05"
        ):
            prepare.prepare(load(project), raw, tmp_path / "out")
    else:
        rejected = prepare.prepare(load(project), raw, tmp_path / "out").manifest.rejected
        assert [each.file for each in rejected] == ["train/0000000"]
