"""A store of MLflow's that was moved, copied, or shares a disk with another."""

import shutil
import sqlite3

import pytest
from mlflow import MlflowClient

from components.adapters import mlflow_moved, mlflow_store
from components.errors import PedigreeError


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A new store's, whose tables take MLflow seconds."""
    folder = tmp_path_factory.mktemp("new")
    mlflow_store.connect(folder)
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path, database):
    """A folder with a % in its name, and a store in it with an experiment here and two elsewhere."""
    folder = tmp_path / "a b%20c?d"
    folder.mkdir()
    shutil.copyfile(database, folder / "mlflow.db")
    mlflow_store.connect(folder)
    client = MlflowClient()
    for name, parent_folder in (("here", folder), ("other", tmp_path / "disk"), ("far", tmp_path / "disk")):
        artifacts = parent_folder / "mlruns" / ("here" if name == "other" else name)
        artifacts.mkdir(parents=True)
        (artifacts / "kept.txt").write_text(name)
        client.create_experiment(name, str(artifacts))
    return folder


def artifacts_of(name):
    return MlflowClient().get_experiment_by_name(name).artifact_location


def test_a_store_lies_in_the_projects_folder_whatever_its_name(store):
    assert (store / "mlflow.db").is_file()
    assert artifacts_of("here") == str(store / "mlruns" / "here")


def test_a_moved_store_finds_its_own_artifacts_and_leaves_those_on_another_disk(store, tmp_path):
    moved = tmp_path / "moved"
    shutil.move(store, moved)
    mlflow_store.connect(moved)
    assert artifacts_of("here") == str(moved / "mlruns" / "here")
    assert artifacts_of("far") == str(tmp_path / "disk" / "mlruns" / "far")


def test_what_lies_elsewhere_on_purpose_stays_there_though_the_name_of_its_folder_is_here_too(store, tmp_path):
    mlflow_store.connect(store)
    assert artifacts_of("here") == str(store / "mlruns" / "here")
    assert artifacts_of("other") == str(tmp_path / "disk" / "mlruns" / "here")


def test_a_damaged_database_is_a_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, and longer than a header has to be" * 20)
    with pytest.raises(PedigreeError, match=r"mlflow\.db cannot be used \(file is not a database\)"):
        mlflow_moved.follow(tmp_path / "mlflow.db")


def test_a_database_without_tables_is_left_alone(tmp_path):
    sqlite3.connect(tmp_path / "mlflow.db").execute("CREATE TABLE t (x)")
    before = (tmp_path / "mlflow.db").read_bytes()
    mlflow_moved.follow(tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == before
