"""Having a version again: from its commit, data and parameters, in a checkout that has moved and built nothing."""

import shutil

import mlflow
import pytest
from mlflow import MlflowClient

from components.adapters import git, mlflow_store, mlflow_versions
from components.errors import PedigreeError
from components.stages import registry
from components.stages.reproduce import reproduce
from components.trust import lineage
from pipelines import registry as door
from tests.conftest import TASKS

MODEL = "components/vision/model.py"


@pytest.fixture(scope="module")
def moved(project, chain_of, tmp_path_factory):
    """A project with a champion of every task that lies in another folder now, and whose build/ is gone."""
    for name in TASKS:
        chain_of(name)
    folder = tmp_path_factory.mktemp("another place") / "project"
    left = ("build", ".prefect", "__pycache__")
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(*left))
    mlflow_store.connect(folder)
    yield folder
    mlflow_store.connect(project)


def test_every_version_loads_when_its_checkout_has_moved(moved):
    client = MlflowClient()
    for name in TASKS:
        version = client.get_model_version_by_alias(name, "champion")
        addresses = [
            client.get_model_version_download_uri(name, version.version),
            client.get_run(version.run_id).info.artifact_uri,
            client.get_experiment_by_name(name).artifact_location,
        ]
        assert all(address.startswith(f"{moved}/mlruns/") for address in addresses)
        assert mlflow.pyfunc.load_model(f"models:/{name}@champion").metadata.run_id == version.run_id


@pytest.fixture
def edited(moved):
    """The project with one line of vision's model changed, and in no commit."""
    source = (moved / MODEL).read_text()
    assert 'mode="fan_out"' in source
    (moved / MODEL).write_text(source.replace('mode="fan_out"', 'mode="fan_in"'))
    yield moved
    (moved / MODEL).write_text(source)


@pytest.mark.long
def test_a_version_trained_again_from_its_commit_has_bitwise_the_same_weights(edited, capsys):
    before = [(version.name, version.version) for version in MlflowClient().search_model_versions()]
    assert door.reproduce(edited, "models:/vision@champion", here=False)
    said = capsys.readouterr().out
    assert "identical: vision version 1 trained again with commit " in said
    assert f"The code of this checkout is another one ({MODEL})" in said
    version = mlflow_versions.find("vision@champion")
    again = edited / "build" / "reproduced" / "vision-1"
    assert lineage.read(again / "model").weights == registry.lineage_of(version).weights
    assert (again / "evaluation" / "metrics.json").is_file()
    assert not list(again.parent.glob(".*"))
    assert [(version.name, version.version) for version in MlflowClient().search_model_versions()] == before


@pytest.mark.long
def test_one_line_changed_in_the_model_makes_other_weights_and_the_reason_is_the_code(edited, capsys):
    assert not door.reproduce(edited, "models:/vision@champion", here=True)
    said = capsys.readouterr().out
    assert "differs: vision version 1 trained again with the code of this checkout" in said
    (line,) = (line for line in said.splitlines() if line.startswith(" code "))
    assert registry.lineage_of(mlflow_versions.find("vision@champion")).code.components in line
    for what in ("data", "lock", "params", "hardware", "world size"):
        assert f"\n {what} " not in said


def test_data_that_were_changed_since_come_from_dvcs_cache(moved, monkeypatch):
    """Only what is asked before anything is trained, for that takes seconds."""
    from components.stages import reproduce as stage

    seen = {}

    def look(task, name, place, source):
        raw = place / "data" / task
        seen.update({str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()})
        raise PedigreeError("seen enough")

    monkeypatch.setattr(stage, "_run", look)
    raw = moved / "data" / "vision"
    kept = {str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()}
    victim = next(path for path in raw.rglob("*.png"))
    victim.unlink()
    try:
        with pytest.raises(PedigreeError, match="seen enough"):
            reproduce("models:/vision@champion", moved, here=False)
        assert seen == kept
        (moved / ".dvc" / "cache").rename(moved / ".dvc" / "away")
        with pytest.raises(
            PedigreeError, match="are neither in data/vision, nor in DVC's cache or remote, nor what"
        ):
            reproduce("models:/vision@champion", moved, here=False)
    finally:
        (moved / ".dvc" / "away").rename(moved / ".dvc" / "cache")
        victim.write_bytes(kept[str(victim.relative_to(raw))])


def test_a_version_whose_commit_is_not_here_says_how_to_go_on(moved, monkeypatch):
    made = registry.lineage_of(mlflow_versions.find("vision@champion"))
    lost = made.model_copy(update={"code": made.code.model_copy(update={"commit": "0" * 40})})
    monkeypatch.setattr(registry, "lineage_of", lambda version: lost)
    with pytest.raises(
        PedigreeError, match=r"is not in this repository: fetch it with git, or train with .* --here"
    ):
        reproduce("models:/vision@champion", moved, here=False)


def test_what_was_in_no_commit_is_part_of_the_code_that_made_a_version(edited, tmp_path):
    tree = git.tree(edited)
    with git.worktree(edited, tree.commit, tree.diff, tmp_path / "code") as folder:
        assert lineage.of_source(folder / "components") == lineage.of_source(edited / "components")
    assert not (tmp_path / "code").exists()


def test_what_differs_between_two_lineages_is_told_by_its_kind(chain):
    made = lineage.read(chain.trained.folder)
    machine = made.machine.model_copy(
        update={
            "device": "cpu (other, 64 threads)",
            "world": 8,
            "packages": {**made.machine.packages, "torch": "3.0"},
        }
    )
    other = made.model_copy(update={"machine": machine, "data": made.data.model_copy(update={"raw": "f00"})})
    found = {change.what: (change.old, change.new) for change in lineage.changes(made, other)}
    assert found.keys() == {"data", "lock", "hardware", "world size"}
    assert found["lock"] == (f"torch {made.machine.packages['torch']}", "torch 3.0")
    assert found["world size"] == ("workers 1", "workers 8")
    assert lineage.changes(made, made) == []
