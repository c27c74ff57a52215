import io
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torchvision
from mlflow import MlflowClient
from PIL import Image

from components.adapters import mlflow_versions
from components.contracts import Rejected
from components.errors import PedigreeError
from components.runtime import files
from components.stages import evaluate as stage
from components.stages import prepare, register, train
from components.tasks.image_generation import classifiers
from components.tasks.image_generation.evaluate import outcomes_from, score, tags
from components.tasks.image_generation.prepare import load_split
from components.training import model_files
from components.trust import gate, intervals, lineage
from tests.conftest import register_as
from tests.tasks.image_generation.tiny import samples


@pytest.fixture(scope="module")
def done(chain_of):
    return chain_of("made-digits")


def test_every_test_image_has_a_sample_of_its_class_and_the_metrics_stand_beside_the_score(done):
    rows = samples(done.evaluated.folder)
    label = load_split(done.prepared.folder, "test")["label"].tolist()
    assert [row["class"] for row in rows] == [str(each) for each in label]
    metrics = done.evaluated.metrics
    assert metrics["frechet_ratio"] == pytest.approx(metrics["frechet"] / metrics["frechet_floor"])
    assert 0 < metrics["frechet_floor"] < metrics["frechet"]
    assert metrics["accuracy"] == np.mean([row["class"] == row["judged"] for row in rows])
    assert {f"accuracy/{name}" for name in "0123"} <= metrics.keys()
    for name in ("precision", "recall", "near_training", "accuracy_of_test_images"):
        assert 0 <= metrics[name] <= 1, name


def test_figures_show_samples_interpolations_and_what_is_nearest(done):
    for name in ("samples", "interpolations", "nearest", "classes", "learning_curves"):
        assert (done.evaluated.folder / "plots" / f"{name}.png").stat().st_size > 1000, name
    assert (done.evaluated.folder / "examples" / "mistakes.png").exists()


def test_outcomes_name_the_network_of_their_features_which_is_a_tag(done):
    written = stage.read_outcomes(done.evaluated.folder)
    sha256 = tags(done.prepared)["frechet.features"]
    assert sha256 == classifiers.sha256(done.prepared.folder)
    assert written.columns.keys() == {f"real@{sha256[:12]}", f"generated@{sha256[:12]}"}


def test_a_rejected_row_counts_on_neither_side(done):
    rows = done.task.rows(done.prepared, lambda: done.raw)
    predict = done.task.load_predict(
        done.task.build_model(done.values, done.prepared.manifest), done.prepared.manifest, done.values
    )
    answers = predict(list(rows), {})
    whole = outcomes_from(answers, done.prepared)
    part = outcomes_from([Rejected("no"), *answers[1:]], done.prepared)
    assert list(part.samples) == list(whole.samples)
    assert part.row_samples.tolist() == list(range(1, len(answers)))
    for name, column in whole.columns.items():
        assert np.array_equal(part.columns[name], column[1:]), name
    assert intervals.value(part, score(done.prepared.manifest)) > 0
    nothing = outcomes_from([Rejected("no")] * len(answers), done.prepared)
    assert np.isnan(intervals.value(nothing, score(done.prepared.manifest)))


def test_images_of_a_champion_of_another_size_and_in_colour_are_measured_in_the_present_form(done):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(file, "PNG")
    count = done.prepared.manifest.splits["test"].samples
    found = outcomes_from([{"images": [file.getvalue()]}] * count, done.prepared)
    assert {column.shape for column in found.columns.values()} == {(count, classifiers.SIZE)}


def test_classifiers_learn_the_classes_and_are_the_same_each_time(done, tmp_path):
    split, manifest = load_split(done.prepared.folder, "train"), done.prepared.manifest
    facts = classifiers.Facts.model_validate(manifest.facts)
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        torch.manual_seed(len(str(folder)))
        classifiers.train(folder, split, facts, 25)
    for name in (classifiers.FEATURES, classifiers.JUDGE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        model = classifiers.load(tmp_path / "one", name, facts)
        assert (classifiers.classes(model, split["image"]) == split["label"]).double().mean() > 0.8


def with_inception(chain, file):
    """Return the chain's model with a file from which FID is measured."""
    chosen = chain.values.evaluate.model_copy(update={"inception": str(file)})
    return chain.having(chain.values.model_copy(update={"evaluate": chosen}))


def test_what_evaluation_alone_reads_is_hashed_and_makes_no_training_another_one(done, tmp_path):
    file, out = tmp_path / "inception.pth", tmp_path / "evaluation"
    with pytest.raises(PedigreeError, match=r"^evaluate\.inception names \S+, which does not exist: get it"):
        stage.evaluate(with_inception(done, file), done.prepared, done.trained, out)
    file.write_bytes(b"no tensors")
    model = with_inception(done, file)
    quick = replace(done.task, evaluate=lambda *_: {"frechet": 1.0})
    with pytest.raises(PedigreeError, match=rf"^{file} holds more than tensors"):
        stage.evaluate(replace(model, task=quick), done.prepared, done.trained, out)
    counting = replace(
        quick,
        further_metrics=lambda _, __, sources, ___: {"bytes": len(sources["evaluate.inception"].read_bytes())},
    )
    evaluated = stage.evaluate(replace(model, task=counting), done.prepared, done.trained, out)
    assert evaluated.metrics["bytes"] == 10
    tagged = MlflowClient().get_run(done.trained.run_id).data.tags
    assert tagged["evaluate.inception"] == files.sha256(file)
    assert train.key_now(model, done.prepared) == train.key_now(done.model, done.prepared)
    trained = train.train(model, done.prepared, tmp_path / "model")
    assert lineage.read(trained.folder).sources["evaluate.inception"].sha256 == files.sha256(file)
    assert not (trained.folder / model_files.SOURCES).exists(), "answers do without"


@pytest.mark.long
def test_fid_stands_beside_the_score_if_the_network_is_there(done, tmp_path):
    network = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    model = with_inception(done, tmp_path / "inception.pth")
    evaluated = stage.evaluate(model, done.prepared, done.trained, tmp_path / "evaluation")
    assert evaluated.metrics.keys() == done.evaluated.metrics.keys() | {"fid"}
    assert evaluated.metrics["fid"] > 0


@pytest.mark.long
def test_a_champion_measured_by_another_network_draws_again_before_it_is_compared(done, tmp_path, monkeypatch):
    register_as(done, "measured", tmp_path)
    monkeypatch.setattr(classifiers, "SEEDS", {name: seed + 7 for name, seed in classifiers.SEEDS.items()})
    other = prepare.prepare(done.model, done.raw, tmp_path / "prepared")
    assert other.manifest == done.prepared.manifest, "the data are the same"
    evaluated = stage.evaluate(done.model, other, done.trained, tmp_path / "evaluation")
    model = replace(done.model, name="measured")
    second = register.register(model, other, done.trained, evaluated, tmp_path / "second.json")
    (found,) = (rule["found"] for rule in second.verdict if rule["rule"] == gate.BETTER)
    assert found.startswith("+0 [+0, +0] against version 1, re-evaluated, p = 1"), "the same pixels"
    first, last = (mlflow_versions.find(f"measured/{number}").tags["frechet.features"] for number in (1, 2))
    assert first == classifiers.sha256(done.prepared.folder)
    assert last == classifiers.sha256(other.folder) != first
    monkeypatch.setattr(
        register.version_process, "answering", MagicMock(side_effect=PedigreeError("its process does not start"))
    )
    third = register.register(model, other, done.trained, evaluated, tmp_path / "third.json")
    assert "cannot be compared with version 1: its process does not start" in third.reason


def test_each_validation_has_a_picture_among_the_runs_artifacts(done):
    found = [each.path for each in MlflowClient().list_artifacts(done.trained.run_id, "snapshots")]
    history = [int(row["update"]) for row in model_files.read_history(done.trained.folder)]
    assert found == [f"snapshots/{update:06d}.png" for update in history]
