"""What a version's lineage claims is recomputed, and what contradicts it is found."""

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from components.adapters import mlflow_store, mlflow_versions
from components.errors import DamagedError, PedigreeError
from components.registry import promote, trace
from components.registry.verify import verify
from components.stages import evaluate, register
from pipelines import cli, versions


@pytest.fixture
def copy(chain, tmp_path):
    """A copy of the project that a test may damage."""
    folder = tmp_path / "project"
    shutil.copytree(chain.root, folder, ignore=shutil.ignore_patterns(".prefect"))
    mlflow_store.connect(folder)
    yield folder
    mlflow_store.connect(chain.root)


def states(root):
    return {check.entry: check.state for check in verify(mlflow_versions.find("digits"), root)}


def contradicted(root):
    return {entry for entry, state in states(root).items() if state == "contradicted"}


def test_all_that_a_version_claims_holds_after_it_was_registered(chain, capsys):
    found = verify(mlflow_versions.find("digits"), chain.root)
    assert {check.entry for check in found if check.state != "holds"} == set()
    assert {"records", "files", "weights", "params", "prepared", "data", "test split", "score", "code", "lock"} <= {
        check.entry for check in found
    }
    assert versions.verify(chain.root, "digits/1")
    assert f"digits version 1: {len(found)} holds" in capsys.readouterr().out


def damage(file):
    mode = file.stat().st_mode
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    file.chmod(mode)  # DVC trusts what is read-only


def test_a_changed_byte_in_the_stored_weights_is_a_contradiction(copy, capsys):
    for weights in (copy / "mlruns" / "digits").rglob("weights.safetensors"):
        damage(weights)
    assert contradicted(copy) == {"files"}
    assert not versions.verify(copy, None)
    assert "contradicted" in capsys.readouterr().out


def test_a_changed_byte_of_the_data_in_dvcs_cache_is_a_contradiction(copy):
    for file in (copy / ".dvc" / "cache").rglob("*"):
        if file.is_file() and file.suffix != ".dir":
            damage(file)
    assert contradicted(copy) == {"data"}


def test_an_edited_lineage_is_a_contradiction(copy):
    with sqlite3.connect(copy / "mlflow.db") as database:
        (text,) = database.execute(
            "select value from model_version_tags where name = 'digits' and key = 'mlflow.pedigree.lineage'"
        ).fetchone()
        edited = json.loads(text)
        edited["data"]["raw"] = "0" * 32 + ".dir"
        database.execute(
            "update model_version_tags set value = ? where name = 'digits' and key = 'mlflow.pedigree.lineage'",
            [json.dumps(edited)],
        )
    assert contradicted(copy) == {"records"}


LOSSES = {
    "one hash": "delete from model_version_tags where key = 'mlflow.pedigree.files'",
    "both hashes": "delete from model_version_tags where key = 'mlflow.pedigree.records'",
    "all records": "delete from model_version_tags where key like 'mlflow.pedigree.%'",
    "all tags": "delete from model_version_tags",
    "its run, too": "delete from tags where key = 'version'",
}
"""What a version may lose in MLflow's database, one after the other."""


def test_a_version_that_lost_its_hashes_is_damaged_whatever_else_it_lost_and_its_code_does_not_run(
    chain, copy, tmp_path
):
    (code,) = (copy / "mlruns" / "digits" / "models").glob(
        f"{mlflow_source('digits')}/**/code/components/training/model_files.py"
    )
    code.write_text("raise RuntimeError('changed code ran')\n")
    outcomes = evaluate.read_outcomes(chain.evaluated.folder)
    MlflowClient().set_tag(chain.trained.run_id, "version", "digits/1")  # other tests register this run again
    for lost, statement in LOSSES.items():
        with closing(sqlite3.connect(copy / "mlflow.db")) as database, database:
            database.execute(statement)
        version = mlflow_versions.find("digits")
        with pytest.raises(
            DamagedError, match="are damaged: restore" if lost == "one hash" else "lacks the hashes"
        ):
            mlflow_versions.fetch(version, tmp_path / "fetched")  # before it answers, is served or trains again
        with pytest.raises(DamagedError):
            promote.promote("digits/1", "again", copy)
        scratch = tmp_path / lost
        assert register._champion(chain.model, chain.prepared, version, outcomes, scratch).outcomes is None
        with pytest.raises(PedigreeError if lost == "its run, too" else DamagedError):
            trace.trace("digits", copy)
        assert states(copy) == {"records": "contradicted"}
    assert not versions.verify(copy, None)


def mlflow_source(name):
    """Return the id of the champion's files in the store."""
    return MlflowClient().get_model_version_by_alias(name, "champion").source.rpartition("/")[2]


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_a_folder_of_a_version_that_became_a_link_is_a_change_and_leaves_no_copy(
    copy, tmp_path, monkeypatch, where
):
    (folder,) = (copy / "mlruns" / "digits" / "models").glob(f"{mlflow_source('digits')}/**/components/stages")
    target = folder.with_name("elsewhere") if where == "inside" else tmp_path / "elsewhere"
    folder.rename(target)
    folder.symlink_to(target)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(DamagedError, match=r"^the files of digits version 1 .* differ from those that were regist"):
        mlflow_versions.check(mlflow_versions.find("digits"))
    assert list(temporary.iterdir()) == []


def test_a_file_named_like_a_folder_of_bytecode_is_a_change_and_ends_no_verification(copy, capsys):
    for folder in (copy / "mlruns" / "digits" / "models").glob("**/code/components/stages"):
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        (folder / "__pycache__").write_text("no folder")
    assert contradicted(copy) == {"files"}
    assert not versions.verify(copy, None)
    assert "contradicted" in capsys.readouterr().out


def test_a_changed_prepared_array_is_a_contradiction_with_which_the_command_exits_with_1(copy, monkeypatch):
    damage(copy / "build" / "digits-chain" / "prepared" / "test.images.npy")
    assert contradicted(copy) == {"prepared"}
    monkeypatch.chdir(copy)
    assert CliRunner().invoke(cli.app, ["verify", "digits/1"]).exit_code == 1


def test_what_was_removed_is_gone_and_no_contradiction(copy):
    shutil.rmtree(copy / "build")
    shutil.rmtree(copy / ".dvc" / "cache")
    shutil.rmtree(copy / "data" / "digits")
    shutil.rmtree(copy / ".git")
    found = states(copy)
    assert {entry for entry, state in found.items() if state == "gone"} == {"data", "prepared", "code"}
    assert Counter(found.values())["contradicted"] == 0
    shutil.rmtree(copy / ".dvc")
    assert states(copy) == found, "as where DVC was never set up"
    assert versions.verify(copy, "digits/1")
