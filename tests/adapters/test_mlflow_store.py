"""MLflow's store is asked with MLflow's own client, and what is wrong with it is a sentence."""

import base64
import shutil
import sqlite3
from contextlib import closing

import mlflow
import pytest

from components.adapters import mlflow_store
from components.errors import PedigreeError
from components.runtime import addresses
from components.runtime.processes import environment
from pipelines.children import Children
from tests.conftest import CANARY, with_secrets
from tests.gateway import LOGIN_PAGE, certificate, gateway
from tests.running import PEDIGREE, free_ports, python


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The folder of an MLflow server."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def server(store):
    """The address of an MLflow server."""
    folder = store
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    env = environment(
        MLFLOW_BACKEND_STORE_URI=f"sqlite:///{folder}/mlflow.db",
        MLFLOW_ARTIFACTS_DESTINATION=str(folder),
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    )
    with Children(env) as children:
        serve = ["-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
        children.start("MLflow", serve, f"{address}/health", folder)
        children.wait()
        yield address


@pytest.fixture
def connect(tmp_path, monkeypatch):
    """Use the store at an address, as a command does with these variables."""
    before = mlflow.get_tracking_uri()

    def connect(address: str, **variables: str) -> None:
        for name, value in ({"MLFLOW_TRACKING_URI": address} | variables).items():
            monkeypatch.setenv(name, value)
        mlflow_store.connect(tmp_path)
        mlflow.search_experiments()

    yield connect
    mlflow.set_tracking_uri(before)


def test_a_server_behind_a_gateway_that_passes_on_only_the_api_below_a_path_is_used(server, connect):
    with gateway(server, prefix="/team/mlflow", only="/api/") as address:
        connect(address)
        connect(f"{address}/")


def test_a_server_whose_certificate_mlflows_client_is_configured_to_trust_is_used(server, connect, tmp_path):
    file = certificate(tmp_path)
    with gateway(server, tls=file) as address:
        with pytest.raises(PedigreeError, match=r"does not answer at https.*certificate.*check MLflow's TLS"):
            connect(address)
        connect(address, MLFLOW_TRACKING_SERVER_CERT_PATH=str(file))


def test_a_server_whose_certificate_mlflows_client_is_configured_not_to_check_is_used(server, connect, tmp_path):
    with gateway(server, tls=certificate(tmp_path)) as address, pytest.warns(Warning, match="Unverified HTTPS"):
        connect(address, MLFLOW_TRACKING_INSECURE_TLS="true")


@pytest.mark.parametrize("code", [401, 403])
def test_a_server_that_requires_a_login_is_used_with_it_and_asks_for_it_without(server, connect, code):
    with gateway(server, need=("authorization", "Bearer a-token"), refusal=(code, b"no")) as address:
        with pytest.raises(PedigreeError, match=rf"requires a login \({code} .*MLFLOW_TRACKING_TOKEN"):
            connect(address)
        connect(address, MLFLOW_TRACKING_TOKEN="a-token")


def test_the_pages_of_this_checkout_ask_for_its_own_login(connect, tmp_path):
    with (
        gateway("http://127.0.0.1:9", need=("authorization", "Basic a-login")) as address,
        addresses.published(tmp_path, address),
        pytest.raises(PedigreeError, match=r"_PASSWORD to the user:password in .prefect/login, or unset"),
    ):
        connect(address)


def test_the_page_of_a_login_does_not_pass_for_mlflow(server, connect):
    with (
        gateway(server, need=("authorization", "Bearer a-token"), refusal=(200, LOGIN_PAGE)) as address,
        pytest.raises(PedigreeError, match=r"returned 200 OK and no list of experiments\): check the address"),
    ):
        connect(address)


def test_a_database_of_a_newer_mlflow_is_named_as_such_and_not_as_out_of_date(tmp_path, connect, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow_store.connect(tmp_path)
    file = tmp_path / "mlflow.db"
    (revision,) = change(file, "SELECT version_num FROM alembic_version")
    change(file, "UPDATE alembic_version SET version_num = 'fedcba987654'")
    copy = tmp_path / "copy.db"  # MLflow looks at the tables of one address only once in a process
    file.rename(copy)
    with pytest.raises(PedigreeError, match=r"copy.db was made by a newer MLflow than .*requirements\.lock"):
        connect(f"sqlite:///{copy}")
    change(copy, f"UPDATE alembic_version SET version_num = '{revision}'")
    connect(f"sqlite:///{copy}")


def change(file, statement):
    with closing(sqlite3.connect(file)) as database, database:
        return database.execute(statement).fetchone()


@pytest.mark.long
def test_no_secret_gets_from_a_run_into_its_store_its_files_or_its_output(project, store, server, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("build", "mlflow.db", ".prefect"))
    for name in ("prod.env", "notes.ipynb", ".aws/credentials"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(CANARY)
    login = base64.b64encode(f"ann:{CANARY}".encode()).decode()
    with gateway(server, need=("authorization", f"Basic {login}")) as address:
        variables = {
            "MLFLOW_TRACKING_URI": address.replace("://", f"://ann:{CANARY}@"),
            "AWS_SECRET_ACCESS_KEY": CANARY,
            "https_proxy": f"http://ann:{CANARY}@proxy.example:3128",
        }
        done = python(copy, 400, *PEDIGREE, "run", "digits", **variables)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "3 files that may hold secrets are recorded by name and hash only: .aws/credentials, notes" in printed
    assert CANARY not in printed
    for name in ("prod.env", "notes.ipynb", ".aws/credentials"):
        (copy / name).unlink()
    assert with_secrets(copy) == with_secrets(store) == []
