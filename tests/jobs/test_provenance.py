"""What a training says of the files that it stores with its run, and of those that it does not."""

import logging
import subprocess

import pytest

from components.jobs import provenance


@pytest.fixture
def repository(tmp_path):
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        author = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
        subprocess.run(["git", *author, *command], cwd=tmp_path, check=True)
    return tmp_path


def test_changes_of_parameters_and_pins_alone_are_known_as_such_and_those_of_dvc_lock_are_none(repository):
    (repository / "dvc.lock").write_text("outputs")
    assert provenance._code(repository)[0].changes == ""
    (repository / "params.yaml").write_text("models: {}")
    (repository / "data.dvc").write_text("outs: []")
    found = provenance._code(repository)[0]
    assert found.changes == "uncommitted changes of data.dvc and params.yaml alone"
    (repository / "model.py").write_text("layers = 2")
    assert provenance._code(repository)[0].changes == "uncommitted changes"


def test_a_run_says_which_new_files_it_stores_and_which_may_hold_secrets(repository, caplog):
    caplog.set_level(logging.INFO, "pedigree")
    assert not provenance._code(repository)[0].dirty
    assert caplog.messages == []
    (repository / "prod.env").write_text("CANARY")
    assert provenance._code(repository)[0].dirty
    assert caplog.messages == ["1 file that may hold secrets is recorded by name and hash only: prod.env"]
    caplog.clear()
    (repository / "key.pem").write_text("CANARY")
    (repository / "notes.txt").write_text("layers")
    _, diff = provenance._code(repository)
    assert caplog.messages == [
        "2 files that may hold secrets are recorded by name and hash only: key.pem, prod.env",
        "1 new file is stored with the run in uncommitted.diff: notes.txt",
    ]
    assert b"CANARY" not in diff
