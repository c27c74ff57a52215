"""The four stages, run once on real digits: what they leave in files and in MLflow."""

import json
import shutil
import time
from dataclasses import replace

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from components import params
from components.adapters import mlflow_runs
from components.errors import PedigreeError
from components.stages import evaluate, prepare, register, train
from components.training import model_files
from tests.conftest import with_secrets
from tests.drawing import draw_only


def changed(chain, **train_params):
    """Return the chain's parameters with others for training."""
    tree = chain.values.model_dump(by_alias=True)
    values = params.Values({"train": train_params}, {}).over(params.Values(tree, {})).tree
    return chain.task.params.model_validate(values)


WILD = {
    "optimizer": {"name": "sgd", "lr": 100.0},
    "clip_norm": 0,
    "average": {"name": "none"},
    "batch_size": 4,
}
"""A training that diverges."""


@pytest.fixture
def run(chain):
    return MlflowClient().get_run(chain.trained.run_id)


def test_every_stage_can_be_resumed_from_its_files(chain):
    assert prepare.load(chain.prepared.folder) == chain.prepared
    assert train.load(chain.trained.folder) == chain.trained
    assert evaluate.load(chain.evaluated.folder) == chain.evaluated


def test_no_file_has_a_secret_of_the_environment_or_of_the_address_of_gits_remote(chain):
    assert with_secrets(chain.root) == []


def test_another_seed_gives_other_weights(chain, tmp_path):
    other = train.train(chain.having(changed(chain, seed=1, epochs=1)), chain.prepared, tmp_path / "model")
    first, second = (load_file(t.folder / model_files.WEIGHTS) for t in (chain.trained, other))
    assert not torch.equal(first["network.conv1.weight"], second["network.conv1.weight"])


def test_the_run_holds_parameters_environment_and_data(chain, run):
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "digits 1 test"
    assert run.data.params["train.optimizer.lr"] == str(chain.values.train.optimizer.lr)
    assert set(run.data.params) == set(params.flat(chain.values.model_dump(by_alias=True)))
    environment = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/environment.json"))
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    digests = {d.dataset.name: d.dataset.digest for d in run.inputs.dataset_inputs}
    splits = chain.prepared.manifest.splits
    assert digests == {f"digits/{split}": splits[split].sha256[:32] for split in ("train", "val", "test")}


def test_each_validation_reaches_the_run_at_its_update(chain, run):
    rows = model_files.read_history(chain.trained.folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for metric in ("train/loss", "val/loss", "val/accuracy", "speed/samples_per_second", "speed/share_of_peak"):
        logged = MlflowClient().get_metric_history(run.info.run_id, metric)
        assert [(m.step, m.value) for m in logged] == [(row["update"], row[metric]) for row in rows], metric
    assert 0 < run.data.metrics["speed/share_of_peak"] < 1.5


def test_the_load_of_the_machine_is_recorded_while_a_run_lasts(chain):
    run_id = mlflow_runs.start_run("a job", "digits", "load", {}, chain.prepared.manifest, chain.prepared.folder)
    with mlflow_runs.recording(run_id, seconds=0.2):
        time.sleep(2)
    run = MlflowClient().get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 0


def test_the_best_epochs_weights_are_kept(chain):
    history = model_files.read_history(chain.trained.folder)
    best = max(row["val/accuracy"] for row in history)
    model = model_files.rebuild(chain.task, chain.trained.folder)
    val = chain.task.load_split(chain.prepared.folder, "val")
    with torch.inference_mode():
        right = (model(val["image"]).argmax(1) == val["label"]).float().mean()
    assert right.item() == pytest.approx(best, abs=1e-6)


def test_the_epoch_with_the_lowest_loss_is_kept_where_the_loss_is_the_best_metric(chain, tmp_path):
    """The rate is so high that the loss rises from one epoch to the next."""
    rising = {"optimizer": {"lr": 0.03}, "average": {"name": "none"}, "epochs": 4, "patience": 1}
    trained = train.train(
        chain.having(changed(chain, best_metric="loss", **rising)), chain.prepared, tmp_path / "model"
    )
    losses = [row["val/loss"] for row in model_files.read_history(trained.folder)]
    model = model_files.rebuild(chain.task, trained.folder)
    val = chain.task.load_split(chain.prepared.folder, "val")
    with torch.inference_mode():
        loss = torch.nn.functional.cross_entropy(model(val["image"]), val["label"])
    assert loss.item() == pytest.approx(min(losses), rel=1e-4)
    assert max(losses) > 1.01 * min(losses)


def test_the_evaluation_is_on_the_run_and_in_files(chain, run):
    metrics = json.loads((chain.evaluated.folder / "metrics.json").read_text())
    assert run.data.metrics["test/accuracy"] == metrics["accuracy"]
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"]
    shown = {file.path for file in MlflowClient().list_artifacts(run.info.run_id, "evaluation/plots")}
    for picture in ("confusion.png", "reliability.png", "learning_curves.png"):
        assert (chain.evaluated.folder / "plots" / picture).read_bytes().startswith(b"\x89PNG")
        assert f"evaluation/plots/{picture}" in shown


def test_the_first_version_is_champion_and_an_equal_one_stays_challenger(chain, tmp_path):
    assert chain.registered.aliases == ("challenger", "champion")
    assert chain.registered.reason == "champion: there was none before"
    again = register.register(
        chain.model, chain.prepared, chain.trained, chain.evaluated, tmp_path / "registered.json"
    )
    assert again.aliases == ("challenger",)
    assert again.reason.startswith("challenger: not better than version 1")
    client = MlflowClient()
    assert int(client.get_model_version_by_alias("digits", "champion").version) == chain.registered.version
    assert int(client.get_model_version_by_alias("digits", "challenger").version) == again.version


def test_a_first_version_whose_gate_has_no_bounds_is_champion_and_its_verdict_says_so(chain, tmp_path):
    tree = chain.values.model_dump(by_alias=True)
    tree["register"]["gate"]["at_least"] = {}
    model = replace(chain.having(chain.task.params.model_validate(tree)), name="unbounded")
    parts = chain.prepared, chain.trained, chain.evaluated
    first = register.register(model, *parts, tmp_path / "registered.json")
    assert first.reason == "champion: there was none before, and register.gate has no bounds for metrics"


def test_the_score_recomputed_through_the_registered_model_from_raw_files_is_the_same_number(chain):
    import pandas as pd

    model = mlflow.pyfunc.load_model("models:/digits@champion")
    raw = chain.root / "data" / "digits"
    files = sorted((raw / "test").rglob("*.png"))
    answers = model.predict(pd.DataFrame({"image": [file.read_bytes() for file in files]}))
    right = sum(label == file.parent.name for label, file in zip(answers["label"], files, strict=True))
    assert right / len(files) == chain.evaluated.metrics["accuracy"]


def test_the_registered_version_holds_code_requirements_and_an_example(chain):
    version = MlflowClient().get_model_version("digits", str(chain.registered.version))
    folder = mlflow.artifacts.download_artifacts(f"models:/digits/{version.version}")
    described = mlflow.models.get_model_info(folder)
    requirements = mlflow.artifacts.load_text(f"{folder}/requirements.txt").split()
    assert f"torch=={torch.__version__.partition('+')[0]}" in requirements
    assert described.saved_input_example_info is not None
    assert mlflow.artifacts.load_text(f"{folder}/code/components/tasks/image_classification/model.py")


def runs_named(name):
    experiment = MlflowClient().get_experiment_by_name("digits").experiment_id
    return mlflow.search_runs([experiment], f"run_name = '{name}'", output_format="list")


def test_a_failed_training_leaves_the_earlier_model_and_says_so_on_its_run(chain, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(chain.trained.folder, model)
    before = (model / model_files.WEIGHTS).read_bytes()
    with pytest.raises(PedigreeError, match=r"lower train\.optimizer\.lr"):
        train.train(chain.having(changed(chain, **WILD)), chain.prepared, model, name="wild")
    assert (model / model_files.WEIGHTS).read_bytes() == before
    (failed,) = runs_named("wild")
    assert failed.info.status == "FAILED"


def test_a_training_of_few_updates_of_random_weights_warns_with_their_number(chain, tmp_path, caplog):
    train.train(
        chain.having(changed(chain, epochs=1, batch_size=50, workers=0)), chain.prepared, tmp_path / "model"
    )
    updates = chain.prepared.manifest.splits["train"].samples // 50
    assert f"digits: {updates} updates in all are few for random weights: raise train.epochs (now 1)" in caplog.text


def test_a_misnamed_best_metric_ends_the_stage_before_there_is_a_run(chain, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(chain.trained.folder, model)
    before = (model / model_files.WEIGHTS).read_bytes()
    with pytest.raises(
        PedigreeError,
        match=r"^train\.best_metric 'acuracy' is not a validation metric: use one of loss, accuracy$",
    ):
        train.train(chain.having(changed(chain, best_metric="acuracy")), chain.prepared, model, name="misnamed")
    assert (model / model_files.WEIGHTS).read_bytes() == before
    assert runs_named("misnamed") == []


def test_transfer_keeps_the_frozen_backbone_and_trains_the_head(chain, tmp_path, caplog):
    from torchvision.models import resnet18

    torch.manual_seed(7)
    checkpoint = resnet18(weights=None).state_dict()
    torch.save(checkpoint, tmp_path / "resnet18.pth")
    init = {"from": str(tmp_path / "resnet18.pth"), "freeze": 1}
    values = changed(chain, epochs=1, init=init, model={"network": "resnet18", "width": 1.0, "stem": "imagenet"})
    trained = train.train(chain.having(values), chain.prepared, tmp_path / "model")
    assert "few for random weights" not in caplog.text
    weights = load_file(trained.folder / model_files.WEIGHTS)
    for name, tensor in checkpoint.items():
        if not name.startswith(("fc.", "conv1.")) and not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(weights[f"network.{name}"], tensor, msg=name)
    summed = checkpoint["conv1.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(weights["network.conv1.weight"], summed)  # the digits have one channel
    torch.manual_seed(values.train.seed)
    new = chain.task.build_model(values, chain.prepared.manifest).state_dict()
    assert not torch.equal(weights["network.fc.weight"], new["network.fc.weight"])
    (tmp_path / "resnet18.pth").unlink()
    model_files.rebuild(chain.task, trained.folder)  # the checkpoint is not needed any more


def test_the_whitened_network_learns_from_images_that_are_mirrored_and_is_evaluated_as_it_was_validated(
    chain, tmp_path, monkeypatch
):
    values = changed(
        chain,
        epochs=4,
        optimizer={"name": "sgd", "lr": 0.1},
        model={"network": "whitened", "width": 0.125, "mirror": True},
        augment={"flip": "alternate"},
    )
    trained = train.train(chain.having(values), chain.prepared, tmp_path / "model")
    history = model_files.read_history(trained.folder)
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    network = model_files.rebuild(chain.task, trained.folder).eval()
    image = chain.task.load_split(chain.prepared.folder, "test")["image"]
    with torch.inference_mode():
        torch.testing.assert_close(network(image), network(image.flip(3)))
        patches = network.network.whiten(network.normalize(image)).transpose(0, 1).flatten(1)
    assert patches.square().mean(1).median() == pytest.approx(1, rel=0.5)  # of other digits than it was made of
    draw_only(monkeypatch)
    evaluated = evaluate.evaluate(chain.having(values), chain.prepared, trained, tmp_path / "evaluation")
    assert 0 <= evaluated.metrics["accuracy"] <= 1


def test_a_training_that_diverges_ends_with_the_remedy(chain, tmp_path):
    with pytest.raises(
        PedigreeError, match=r"^training diverged in epoch 1, .*: lower train\.optimizer\.lr \(now 100"
    ):
        train.train(chain.having(changed(chain, **WILD)), chain.prepared, tmp_path / "model")


def test_training_stops_early_when_nothing_gets_better(chain, tmp_path):
    still = changed(chain, optimizer={"lr": 1e-12}, epochs=9, patience=2, average={"name": "none"})
    trained = train.train(chain.having(still), chain.prepared, tmp_path / "model")
    assert len(model_files.read_history(trained.folder)) < 9


@pytest.mark.parametrize("file", [model_files.WEIGHTS, model_files.MODEL, model_files.RUN])
@pytest.mark.parametrize("harm", ["truncated", "missing"])
def test_a_damaged_model_is_noticed(chain, tmp_path, file, harm):
    shutil.copytree(chain.trained.folder, tmp_path / "model")
    path = tmp_path / "model" / file
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])

    def take_up():
        return model_files.rebuild(chain.task, train.load(tmp_path / "model").folder)

    with pytest.raises(PedigreeError, match=f"{file}.*again"):
        take_up()


def test_a_stage_without_the_one_before_says_which_to_run(tmp_path):
    for stage, load in (("prepare", prepare.load), ("train", train.load), ("evaluate", evaluate.load)):
        with pytest.raises(PedigreeError, match=f"run the {stage} stage first"):
            load(tmp_path / "nothing")
