"""Having a version again: from its commit, data and parameters, in a checkout that has moved and built nothing."""

import hashlib
import math
import shutil
from contextlib import contextmanager

import mlflow
import pytest
from mlflow import MlflowClient

from components.adapters import git, mlflow_store, mlflow_versions
from components.errors import PedigreeError
from components.registry import trace
from components.registry.reproduce import reproduce, verdict
from components.trust import lineage, old_versions
from pipelines import versions
from tests.conftest import MODELS
from tests.trust import test_lineage

MODEL = "components/images/networks/resnet.py"


@contextmanager
def in_another_place(project, folder):
    """Copy a project into another folder, without build/; within the block, MLflow's store is the copy's."""
    left = ("build", ".prefect", "__pycache__")
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(*left))
    mlflow_store.connect(folder)
    yield folder
    mlflow_store.connect(project)


@pytest.fixture(scope="module")
def moved(project, chain_of, tmp_path_factory):
    """A project with a champion that lies in another folder now, and whose build/ is gone."""
    chain_of(MODELS[0])
    with in_another_place(project, tmp_path_factory.mktemp("another place") / "project") as folder:
        yield folder


def expect_loaded(moved, name):
    client = MlflowClient()
    version = client.get_model_version_by_alias(name, "champion")
    addresses = [
        client.get_model_version_download_uri(name, version.version),
        client.get_run(version.run_id).info.artifact_uri,
        client.get_experiment_by_name(name).artifact_location,
    ]
    assert all(address.startswith(f"{moved}/mlruns/") for address in addresses)
    assert mlflow.pyfunc.load_model(f"models:/{name}@champion").metadata.run_id == version.run_id


def test_a_version_loads_when_its_checkout_has_moved(moved):
    expect_loaded(moved, MODELS[0])


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS[1:])
def test_a_version_of_any_task_loads_when_its_checkout_has_moved(project, chain_of, tmp_path, name):
    chain_of(name)
    with in_another_place(project, tmp_path / "project") as folder:
        expect_loaded(folder, name)


@pytest.fixture
def edited(moved):
    """The project with one line of the network changed, and in no commit."""
    source = (moved / MODEL).read_text()
    assert 'mode="fan_out"' in source
    (moved / MODEL).write_text(source.replace('mode="fan_out"', 'mode="fan_in"'))
    yield moved
    (moved / MODEL).write_text(source)


@pytest.mark.long
def test_a_version_trained_again_from_its_commit_has_bitwise_the_same_weights(edited, capsys):
    before = [(version.name, version.version) for version in MlflowClient().search_model_versions()]
    assert versions.reproduce(edited, "models:/digits@champion", here=False)
    said = capsys.readouterr().out
    assert "identical: digits version 1 trained again with commit " in said
    assert f"The code of this checkout differs ({MODEL})" in said
    version = mlflow_versions.find("digits@champion")
    again = edited / "build" / "reproduced" / "digits-1"
    assert lineage.read(again / "model").weights == trace.lineage_of(version).weights
    assert (again / "evaluation" / "metrics.json").is_file()
    assert not list(again.parent.glob(".*"))
    assert [(version.name, version.version) for version in MlflowClient().search_model_versions()] == before


@pytest.mark.long
def test_one_line_changed_in_the_model_makes_other_weights_and_the_reason_is_the_code(edited, capsys):
    assert not versions.reproduce(edited, "models:/digits@champion", here=True)
    said = capsys.readouterr().out
    assert "differs: digits version 1 trained again with the code of this checkout" in said
    (line,) = (line for line in said.splitlines() if line.startswith(" code "))
    assert trace.lineage_of(mlflow_versions.find("digits@champion")).code.components in line
    for what in ("data", "lock", "params", "hardware", "world size"):
        assert f"\n {what} " not in said


def test_data_that_were_changed_since_come_from_dvcs_cache(moved, monkeypatch):
    """Only what is asked before anything is trained, for that takes seconds."""
    seen = {}

    def look(name, stage, workspace, source, names):
        raw = workspace / "data" / name
        seen.update({str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()})
        raise PedigreeError("seen enough")

    monkeypatch.setattr("components.registry.reproduce._run", look)
    raw = moved / "data" / "digits"
    contents = {str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()}
    victim = next(path for path in raw.rglob("*.png"))
    victim.unlink()
    try:
        with pytest.raises(PedigreeError, match="seen enough"):
            reproduce("models:/digits@champion", moved, here=False)
        assert seen == contents
        md5 = hashlib.md5(contents[str(victim.relative_to(raw))], usedforsecurity=False).hexdigest()
        cached = moved / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
        cached.chmod(0o644)
        cached.write_bytes(b"damaged")
        cached.chmod(0o444)  # DVC trusts what is read-only
        with pytest.raises(PedigreeError, match=r"files of data \w+\.dir are damaged in DVC's cache"):
            reproduce("models:/digits@champion", moved, here=False)
        (moved / ".dvc" / "cache").rename(moved / ".dvc" / "away")
        with pytest.raises(PedigreeError, match="are neither in data/digits nor in DVC's cache or remote"):
            reproduce("models:/digits@champion", moved, here=False)
    finally:
        (moved / ".dvc" / "away").rename(moved / ".dvc" / "cache")
        victim.write_bytes(contents[str(victim.relative_to(raw))])


def test_a_version_whose_commit_is_not_here_says_how_to_go_on(moved, monkeypatch):
    ancestry = trace.lineage_of(mlflow_versions.find("digits@champion"))
    lost = ancestry.model_copy(update={"code": ancestry.code.model_copy(update={"commit": "0" * 40})})
    monkeypatch.setattr(trace, "lineage_of", lambda version: lost)
    with pytest.raises(
        PedigreeError, match=r"is not in this repository: fetch it with git, or train with .* --here"
    ):
        reproduce("models:/digits@champion", moved, here=False)


def test_what_was_in_no_commit_is_part_of_the_code_that_made_a_version(edited, tmp_path):
    tree = git.tree(edited)
    with git.worktree(edited, tree.commit, tree.diff, tmp_path / "code") as folder:
        assert lineage.of_source(folder / "components") == lineage.of_source(edited / "components")
    assert not (tmp_path / "code").exists()


def test_the_checkpoint_that_an_old_version_names_is_found_where_it_is_trained_again(chain, tmp_path):
    ancestry = lineage.read(chain.trained.folder)
    named = {
        **ancestry.params,
        "train": {**ancestry.params["train"], "model": {"checkpoint": "weights/resnet18.pth"}},
    }
    old = ancestry.model_copy(update={"model": "", "params": named})
    project, workspace = tmp_path / "project", tmp_path / "workspace"
    (project / "weights").mkdir(parents=True)
    (project / "weights" / "resnet18.pth").write_bytes(b"weights")
    workspace.mkdir()
    old_versions.link_checkpoint(ancestry, project, workspace)
    assert not list(workspace.iterdir())
    old_versions.link_checkpoint(old, project, workspace)
    assert (workspace / "weights" / "resnet18.pth").read_bytes() == b"weights"


GPU = "NVIDIA A100 (CUDA 13.0, cuDNN 92400, driver 580.95.05), bf16"


@pytest.mark.parametrize(
    ("then", "now", "weights", "code", "score", "expected"),
    [
        ("cpu", "cpu", "other", "its own", 0.9, "different"),
        ("cpu", "cpu", "its own", "its own", 0.9, "identical"),
        (GPU, GPU, "its own", "its own", 0.9, "identical"),
        (GPU, GPU, "other", "its own", 0.9005, "close"),
        (GPU, GPU, "other", "its own", 0.902, "different"),
        (GPU, GPU, "other", "its own", math.nan, "different"),
        (GPU, GPU, "other", "other", 0.9, "different"),
        (GPU, "cpu", "other", "its own", 0.9, "close"),
        ("cpu", "cpu (other)", "other", "its own", 0.9, "close"),
        ("cpu", "cpu (other)", "other", "other", 0.9, "different"),
    ],
)
def test_other_last_digits_are_close_where_a_gpu_or_other_hardware_computed_them_and_the_score_is_the_same(
    then, now, weights, code, score, expected
):
    def trained(device, weights, code):
        first = test_lineage.ancestry(components=code)
        machine = first.machine.model_copy(update={"device": device})
        return first.model_copy(update={"machine": machine, "weights": weights})

    assert verdict(trained(then, "its own", "its own"), trained(now, weights, code), 0.9, score) == expected


def test_what_differs_between_two_lineages_is_reported_by_its_kind(chain):
    ancestry = lineage.read(chain.trained.folder)
    machine = ancestry.machine.model_copy(
        update={
            "device": "cpu (other, 64 threads)",
            "world": 8,
            "packages": {**ancestry.machine.packages, "torch": "3.0"},
        }
    )
    other = ancestry.model_copy(
        update={"machine": machine, "data": ancestry.data.model_copy(update={"raw": "f00"})}
    )
    found = {change.what: (change.old, change.new) for change in lineage.changes(ancestry, other)}
    assert found.keys() == {"data", "lock", "hardware", "world size"}
    assert found["lock"] == (f"torch {ancestry.machine.packages['torch']}", "torch 3.0")
    assert found["world size"] == ("workers 1", "workers 8")
    assert lineage.changes(ancestry, ancestry) == []
