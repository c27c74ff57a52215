"""Which addresses the commands of a checkout use: those that it serves, or else those that a person chose."""

import gc
import os
import subprocess
import sys

import pytest

from components import __main__ as stage
from components.errors import PedigreeError
from components.runtime import addresses
from pipelines import cli, output
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


MALFORMED = (
    "http://host/?token=CANARY",
    "http://host/api#CANARY",
    "http:/bob:CANARY@host",
    "//bob:CANARY@host",
    "http://bob:pw CANARY@host",
    "http://bob:pw\tCANARY@host",
    "http://bob:p/w#CANARY@host",
    "http://bob:p/CANARY@host",
    "http://bob:1/CANARY@host",
    "http://bob:1?CANARY@host",
    "http://bob:CANARY@host:port",
    "http://[bob:CANARY@host",
    "postgresql://bob:p/CANARY@host/mlflow",
)
NAMES = (*addresses.NAMED, "http_proxy", "ALL_PROXY")


@pytest.fixture
def environment(monkeypatch):
    """The environment without addresses, for a test to change; other lasting effects of commands are left out."""
    before = dict(os.environ)
    for name in [*addresses.NAMED, *(name for name in before if name.lower().endswith("_proxy"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(output, "keep_writable", lambda: None)
    monkeypatch.setattr(sys, "argv", ["pedigree", "list"])
    yield monkeypatch
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("address", MALFORMED)
def test_an_address_that_cannot_be_parsed_is_refused_and_never_shown(environment, capfd, name, address):
    environment.setenv(name, address)
    with pytest.raises(SystemExit):
        cli.main()
    assert stage.main(["digits", "train"]) == 1
    printed = "".join(capfd.readouterr())
    assert printed.count(f"error: the environment variable {name} is not a valid address (not shown here") == 2
    assert "CANARY" not in printed
    assert "pw" not in printed.replace("password", "")


def test_how_to_write_a_login_is_shown_whole(environment):
    environment.setenv("PREFECT_API_URL", "http://bob:p/w@host")
    with pytest.raises(PedigreeError, match="with a login as user:password@ before the host"):
        addresses.expect_valid_environment()


def test_variables_of_other_programs_are_no_concern(environment):
    environment.setenv("SSH_PROXY", "nc -X 5 -x proxy:1080 %h %p")
    environment.setenv("npm_config_no_proxy", "localhost,127.0.0.1,::1")
    addresses.expect_valid_environment()


@pytest.mark.parametrize("name", addresses.NAMED)
def test_an_address_with_a_login_but_no_scheme_is_refused_but_for_a_proxys(environment, name):
    environment.setenv("https_proxy", "bob:CANARY@host:3128")
    addresses.expect_valid_environment()
    environment.setenv(name, "bob:CANARY@host")
    with pytest.raises(
        PedigreeError, match=rf"^the environment variable {name} is not a valid address(?!.*CANARY)"
    ):
        addresses.expect_valid_environment()


@pytest.mark.parametrize(
    "address",
    [
        *(
            "auto",
            "127.0.0.1:6379",
            "[::1]:6379",
            "ray://host:10001",
            "databricks",
            "databricks://me:prefix",
            "uc:me",
        ),
        *("sqlite:////home/ann/My files/a@b/mlflow.db", "file:///tmp/mlruns", "./mlruns", "socks5://proxy:1080"),
        *(
            "postgresql://bob:p%40w@db:5432/mlflow?sslmode=require",
            "http://bob:p%2Fw@host:5000/team/",
            "https://host",
        ),
        *(
            "http://bob:p@w@host:5000",
            "s3://bucket/a@b",
            "ssh://host:2222/home/jane@corp/dvc",
            "/home/jane@corp/runs",
        ),
    ],
)
def test_an_address_that_can_be_parsed_is_used(address):
    addresses.expect_valid(address, "it", is_server=True)
