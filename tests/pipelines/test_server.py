"""Prefect's server is asked with Prefect's own client, and what is wrong with it is a sentence."""

import base64
import http.server
import json
import sqlite3
import threading
from contextlib import closing

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from components.runtime import login
from components.runtime.processes import environment
from pipelines import server
from pipelines.children import Children
from tests.conftest import ROOT
from tests.gateway import LOGIN_PAGE, certificate, gateway
from tests.running import free_ports, python

ASK = """
import sys
from components.errors import PedigreeError
from pipelines import server
try:
    print(server.answers(sys.argv[1]))
except PedigreeError as error:
    print(error)
"""
CHECK = """
from components.errors import PedigreeError
from pipelines import server
try:
    server.check_proxies()
    server.check_database()
except PedigreeError as error:
    print(error)
"""
HEADER = ("x-team-token", "a-token")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder of a Prefect server with its database."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="module")
def backend(home):
    """The address of a Prefect server."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    env = environment(PREFECT_HOME=str(home), PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1")
    with Children(env) as children:
        serve = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        children.start("Prefect", serve, f"{address}/api/health", home)
        children.wait()
        yield address


def said(home, code, *arguments, **variables):
    """Return what a process of ours says, with these variables in its environment."""
    env = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home), **variables}
    done = python(home, 120, "-c", code, *arguments, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_server_behind_a_login_is_used_with_the_header_it_wants_and_asks_for_one_without(backend, home):
    with gateway(backend, prefix="/team", only="/api/flows", need=HEADER) as address:
        assert "requires a login (401 Unauthorized)" in said(home, ASK, f"{address}/api")
        headers = json.dumps(dict([HEADER]))
        # Prefect's client first fetches a token against forged requests, which this gateway does not pass on.
        variables = {"PREFECT_CLIENT_CUSTOM_HEADERS": headers, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false"}
        assert said(home, ASK, f"{address}/api", **variables) == "True"


def test_a_server_that_forbids_what_was_asked_asks_for_another_login(backend, home):
    with gateway(backend, need=HEADER, refusal=(403, b"no")) as address:
        assert "requires a login (403 Forbidden)" in said(home, ASK, f"{address}/api")


def test_the_page_of_a_login_does_not_pass_for_prefect(backend, home):
    with gateway(backend, need=HEADER, refusal=(200, LOGIN_PAGE)) as address:
        assert said(home, ASK, f"{address}/api") == "False"


def test_a_server_is_used_if_prefects_client_is_configured_to_trust_its_certificate(backend, home, tmp_path):
    file = certificate(tmp_path)
    with gateway(backend, tls=file) as address:
        assert said(home, ASK, f"{address}/api") == "False"
        assert said(home, ASK, f"{address}/api", PREFECT_API_SSL_CERT_FILE=str(file)) == "True"


def test_a_teams_server_is_not_sent_the_login_of_this_checkouts_own(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    its_login, seen = login.of(tmp_path), []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers["Authorization"])
            self.send_error(404)

        do_POST = do_GET  # noqa: N815 - the library's name

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as team:
        threading.Thread(target=team.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{team.server_port}/api"
        # As Prefect's profile has it, while `pedigree up` runs.
        for given in (its_login, "team:word"):
            with temporary_settings({PREFECT_API_AUTH_STRING: given}):
                assert not server.answers(address)
        assert not server.answers(address, its_login)
        team.shutdown()
    ours, teams = (f"Basic {base64.b64encode(each.encode()).decode()}" for each in (its_login, "team:word"))
    assert list(dict.fromkeys(seen)) == [None, teams, ours]


def test_a_database_of_a_newer_prefect_is_one_sentence_and_one_of_this_prefect_none(backend, home, tmp_path):
    with (
        closing(sqlite3.connect(home / "prefect.db")) as database,
        closing(sqlite3.connect(tmp_path / "prefect.db")) as copy,
    ):
        database.backup(copy)
    assert said(tmp_path, CHECK) == ""
    with closing(sqlite3.connect(tmp_path / "prefect.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'fedcba987654'")
    sentence = said(tmp_path, CHECK)
    assert sentence.startswith(f"Prefect's database {tmp_path / 'prefect.db'} was made by a newer Prefect than ")
    assert sentence.endswith(f"or move {tmp_path} away, which holds flow runs and settings but no versions")


def test_a_damaged_database_of_prefect_is_one_sentence(tmp_path):
    (tmp_path / "prefect.db").write_bytes(b"no database" * 1000)
    assert said(tmp_path, CHECK).startswith(f"Prefect's database {tmp_path / 'prefect.db'} is damaged (file is not")


def test_a_folder_without_a_database_of_prefect_is_no_problem(tmp_path):
    assert said(tmp_path, CHECK) == ""


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks://127.0.0.1:9"])
def test_a_proxy_that_prefects_client_cannot_use_is_named_before_anything_starts(tmp_path, proxy):
    sentence = said(tmp_path, CHECK, all_proxy=proxy)
    assert "cannot use a proxy that the environment names" in sentence
    assert "httpx[socks]" in sentence
