"""Which addresses the commands of a checkout use: those that it serves, or else those that a person chose."""

import subprocess
import sys

import pytest

from components.errors import PedigreeError
from components.runtime import addresses
from tests.conftest import ROOT

PREFECT, MLFLOW = "http://127.0.0.1:4300", "http://127.0.0.1:5100"


def test_a_checkout_uses_the_servers_of_its_own_up_while_that_runs(tmp_path):
    hers, his = tmp_path / "hers", tmp_path / "his"
    with addresses.published(hers, MLFLOW, PREFECT):
        assert (addresses.prefect(hers), addresses.mlflow(hers)) == (PREFECT, MLFLOW)
        assert (addresses.prefect(his), addresses.mlflow(his)) == (None, "http://127.0.0.1:5000")
    assert (addresses.prefect(hers), addresses.mlflow(hers)) == (None, "http://127.0.0.1:5000")


def test_pages_of_their_own_do_not_hide_the_servers_of_up(tmp_path):
    with addresses.published(tmp_path, MLFLOW, PREFECT), addresses.published(tmp_path, "http://127.0.0.1:5200"):
        assert (addresses.prefect(tmp_path), addresses.mlflow(tmp_path)) == (PREFECT, MLFLOW)


KILLED = """
import os, signal, sys
from pathlib import Path
from components.runtime import addresses
with addresses.published(Path(sys.argv[1]), "http://127.0.0.1:5100", "http://127.0.0.1:4300"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_servers_of_an_up_that_was_killed_are_not_used(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, check=False)
    assert (tmp_path / addresses.FILE).exists()
    assert addresses.prefect(tmp_path) is None
    assert not addresses.serves_mlflow(tmp_path)


@pytest.mark.parametrize("damaged", ["", "[]", "{}", '{"process": 1}', '{"process": {"pid": 1}}'])
def test_a_damaged_file_of_addresses_is_none(tmp_path, damaged):
    file = tmp_path / addresses.FILE
    file.parent.mkdir()
    file.write_text(damaged)
    assert addresses.prefect(tmp_path) is None


def test_links_lead_to_the_port_of_the_environment_and_a_wrong_one_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PEDIGREE_MLFLOW_PORT", "5100")
    assert addresses.mlflow(tmp_path) == MLFLOW
    for wrong in ("five", "0", "65536", "-1"):
        monkeypatch.setenv("PEDIGREE_MLFLOW_PORT", wrong)
        with pytest.raises(PedigreeError, match=r"PEDIGREE_MLFLOW_PORT is .*: set it to a port, 1 to 65535"):
            addresses.mlflow(tmp_path)
