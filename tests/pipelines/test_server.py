"""Prefect's server is asked with Prefect's own client, and what is wrong with it is a sentence."""

import base64
import http.server
import json
import logging
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.client import orchestration
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_PROFILES_PATH,
    temporary_settings,
)
from prefect.settings.profiles import load_current_profile, update_current_profile

from components.errors import PedigreeError
from components.runtime import addresses, login
from components.runtime.processes import environment
from components.training import device
from pipelines import accelerator, prefect_profile, server
from pipelines.children import Children
from tests.conftest import ROOT
from tests.gateway import LOGIN_PAGE, certificate, gateway
from tests.running import free_ports, python

ASK = "import sys; from pipelines import server; print(server.answers(sys.argv[1]))"
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


def answers(home, api, **variables):
    """Return whether a server answers a process of ours that has these variables in its environment."""
    done = python(home, 120, "-c", ASK, api, PYTHONPATH=str(ROOT), PREFECT_HOME=str(home), **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout == "True\n"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Be in a folder without a login."""
    monkeypatch.chdir(tmp_path)
    with temporary_settings(restore_defaults={PREFECT_API_AUTH_STRING}):
        yield


@pytest.mark.usefixtures("elsewhere")
def test_a_server_behind_a_login_is_used_with_the_header_it_wants_and_asks_for_one_without(backend, home):
    with gateway(backend, prefix="/team", only="/api/flows", need=HEADER) as address:
        with pytest.raises(PedigreeError, match=r"requires a login \(401 Unauthorized\)"):
            server.answers(f"{address}/api")
        headers = json.dumps(dict([HEADER]))
        # Prefect's client first fetches a token against forged requests, which this gateway does not pass on.
        variables = {"PREFECT_CLIENT_CUSTOM_HEADERS": headers, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false"}
        assert answers(home, f"{address}/api", **variables)


@pytest.mark.usefixtures("elsewhere")
def test_a_server_that_forbids_what_was_asked_asks_for_another_login(backend):
    with (
        gateway(backend, need=HEADER, refusal=(403, b"no")) as address,
        pytest.raises(PedigreeError, match=r"requires a login \(403 Forbidden\)"),
    ):
        server.answers(f"{address}/api")


@pytest.mark.usefixtures("elsewhere")
def test_the_page_of_a_login_does_not_pass_for_prefect(backend):
    with gateway(backend, need=HEADER, refusal=(200, LOGIN_PAGE)) as address:
        assert not server.answers(f"{address}/api")


@pytest.mark.usefixtures("elsewhere")
def test_a_server_is_used_if_prefects_client_is_configured_to_trust_its_certificate(backend, home, tmp_path):
    file = certificate(tmp_path)
    with gateway(backend, tls=file) as address:
        assert not server.answers(f"{address}/api")
        assert answers(home, f"{address}/api", PREFECT_API_SSL_CERT_FILE=str(file))


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


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """Prefect's profiles in a file of a checkout's own; return the profile's address and login."""
    monkeypatch.chdir(tmp_path)
    with temporary_settings({PREFECT_PROFILES_PATH: tmp_path / "profiles.toml"}):
        yield lambda: [load_current_profile().settings.get(each) for each in ENTRIES]


ENTRIES = (PREFECT_API_URL, PREFECT_API_AUTH_STRING)
TEAM = ["https://prefect.example/api", "team:word"]


@pytest.mark.parametrize("earlier", [TEAM, [TEAM[0], None], [None, None]])
def test_what_the_user_has_in_prefects_profile_is_there_again_after_up(tmp_path, profile, earlier):
    update_current_profile(dict(zip(ENTRIES, earlier, strict=True)))
    its_login = login.of(tmp_path)
    with prefect_profile.holding("http://127.0.0.1:4200/api", its_login):
        assert profile() == ["http://127.0.0.1:4200/api", its_login]
        assert (tmp_path / "profiles.toml").stat().st_mode & 0o777 == 0o600
    assert profile() == earlier


def test_a_profile_that_others_can_read_is_never_written_the_login(tmp_path, profile, monkeypatch):
    its_login = login.of(tmp_path)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # as on file systems without modes
    (tmp_path / "profiles.toml").touch()
    os.chmod(tmp_path / "profiles.toml", 0o777)  # noqa: PTH101 - the other one does nothing
    with (
        pytest.raises(PedigreeError, match=r"is open to .* \(mode 0777\): set PREFECT_PROFILES_PATH to a file on"),
        prefect_profile.holding("http://127.0.0.1:4200/api", its_login),
    ):
        pass
    assert profile() == [None, None]


@pytest.mark.parametrize("team", [False, True])
def test_what_a_killed_up_left_in_prefects_profile_is_removed_and_nothing_else_is(tmp_path, profile, team):
    found = TEAM if team else ["http://127.0.0.1:4200/api", login.of(tmp_path)]
    update_current_profile(dict(zip(ENTRIES, found, strict=True)))
    prefect_profile.clear()
    assert profile() == (TEAM if team else [None, None])


def test_a_command_that_finds_no_up_running_removes_what_a_killed_one_left(tmp_path, profile, monkeypatch):
    update_current_profile({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_API_AUTH_STRING: login.of(tmp_path)})
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(PedigreeError, match="does not answer"), server.connected(lambda: None, lambda: None):
        pass
    assert profile() == [None, None]


def test_a_login_that_was_replaced_while_up_runs_is_one_sentence_and_a_removed_one_is_not_created(
    tmp_path, profile
):
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        do_POST = do_GET  # noqa: N815 - the library's name

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as up:
        threading.Thread(target=up.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{up.server_port}"
        sentence = f"{address}/api has another login than .prefect/login, which was replaced after `pedigree up`"
        with addresses.published(tmp_path, "http://127.0.0.1:9", address):
            for _ in range(2):
                with pytest.raises(PedigreeError, match=sentence), server.connected(lambda: None, lambda: None):
                    pass
                assert not (tmp_path / login.FILE).exists()
        up.shutdown()


HOLD = """
import sys
from pathlib import Path
from pipelines import accelerator, server
with server.at(sys.argv[1]), accelerator.slot(Path.cwd(), "the training of digits in the flow run quick-otter"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def interruptible():
    """Python's own handler of Ctrl-C: the workers of pytest-xdist ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_flow_that_waits_for_the_accelerator_says_for_whom_and_has_its_slot_once_the_holder_is_killed(
    backend, tmp_path, caplog, interruptible
):
    caplog.set_level(logging.INFO, "pedigree.accelerator")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    env = environment(PYTHONPATH=str(ROOT), PREFECT_HOME=str(tmp_path))
    command = [sys.executable, "-c", HOLD, f"{backend}/api"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        holding = f"the training of digits in the flow run quick-otter (pid {holder.pid} on {platform.node()})"
        text = f"waiting for {holding} to end"

        said: list[bool] = []

        def once_it_waits(what):
            def wait():
                end = time.monotonic() + 60
                while text not in caplog.text and time.monotonic() < end:
                    time.sleep(0.05)
                said.append(text in caplog.text)
                what()

            caplog.clear()
            threading.Thread(target=wait, daemon=True).start()

        with server.at(f"{backend}/api"):
            once_it_waits(lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
            with pytest.raises(KeyboardInterrupt), accelerator.slot(tmp_path, "what is cancelled"):
                pass
            once_it_waits(holder.kill)
            with accelerator.slot(tmp_path, "the training of words"):
                assert [each.doing for each in accelerator._slots(tmp_path)] == ["the training of words"]
            assert accelerator._slots(tmp_path) == []
            assert said == [True, True]
            with get_client(sync_client=True) as client:
                assert client.read_global_concurrency_limit_by_name(accelerator.LIMIT).active_slots == 0


@pytest.mark.parametrize(("gpus", "limit"), [((), 1), (("0", "1", "2"), 3)])
def test_as_many_trainings_run_at_a_time_as_there_are_gpus_or_else_one(gpus, limit, monkeypatch):
    def unknown(name):
        raise ObjectNotFound(LookupError(name))

    created = []
    client = SimpleNamespace(
        read_global_concurrency_limit_by_name=unknown, create_global_concurrency_limit=created.append
    )
    monkeypatch.setattr(orchestration, "get_client", lambda sync_client: nullcontext(client))
    monkeypatch.setattr(device, "gpus", lambda: gpus)
    accelerator.set_up()
    assert [(each.name, each.limit) for each in created] == [(accelerator.LIMIT, limit)]


@pytest.fixture
def its_home(tmp_path):
    """The folder in which Prefect looks for its database."""
    with temporary_settings({PREFECT_HOME: tmp_path}):
        yield tmp_path


def test_a_database_of_a_newer_prefect_is_one_sentence_and_one_of_this_prefect_none(backend, home, its_home):
    with (
        closing(sqlite3.connect(home / "prefect.db")) as database,
        closing(sqlite3.connect(its_home / "prefect.db")) as copy,
    ):
        database.backup(copy)
    server.check_database()
    with closing(sqlite3.connect(its_home / "prefect.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'fedcba987654'")
    with pytest.raises(PedigreeError) as found:
        server.check_database()
    sentence = str(found.value)
    assert sentence.startswith(f"Prefect's database {its_home / 'prefect.db'} was made by a newer Prefect than ")
    assert sentence.endswith(f"or move {its_home} away, which holds flow runs and settings but no versions")


def test_a_damaged_database_of_prefect_is_one_sentence(its_home):
    (its_home / "prefect.db").write_bytes(b"no database" * 1000)
    with pytest.raises(PedigreeError, match=rf"^Prefect's database {its_home}/prefect.db is damaged \(file is not"):
        server.check_database()


@pytest.mark.usefixtures("its_home")
def test_a_folder_without_a_database_of_prefect_is_no_problem():
    server.check_database()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks://127.0.0.1:9"])
def test_a_proxy_that_prefects_client_cannot_use_is_named_before_anything_starts(monkeypatch, proxy):
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(PedigreeError, match=r"cannot use a proxy that the environment names .*httpx\[socks\]"):
        server.check_proxies()
