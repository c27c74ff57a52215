"""The product works where the surroundings lack what its tools take for granted."""

import http.server
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components.runtime import surroundings
from tests.conftest import ROOT
from tests.running import PEDIGREE, free_ports, python

NAMELESS = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
"""Runs a program as a user that the system does not know."""
READ_ONLY = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
"""Runs a shell that may mount file systems of its own."""
RENAMED = ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname predecessor && exec "$0" "$@"']
"""Runs a program on a host of another name."""
MOUNT = "mount -t tmpfs -o ro tmpfs /var/tmp && "
PROXIES = [f"{each}_proxy" for each in ("http", "https", "all", "no")]
UNSET = [name for each in PROXIES for name in (each, each.upper())]


def works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(
    sys.platform != "linux" or not works("unshare", "--map-root-user", "--mount", "true"),
    reason="this machine lets nobody make namespaces",
)


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """This process's environment without proxies, in a project; it is restored afterwards."""
    (tmp_path / "params.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    with monkeypatch.context():
        before = dict(os.environ)
        yield monkeypatch
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def page():
    """The address of a server on this machine."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"here")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_our_log_lines_show_no_login_of_an_address_that_a_library_quotes(environment, caplog):
    surroundings.settle()
    surroundings.settle()
    logging.getLogger("pedigree.mlflow").warning("no answer from %s", "http://ann:CANARY@host/a?token=CANARY")
    assert caplog.messages == ["no answer from http://host/a"]


ASK = """
import sys, urllib.request
from components.runtime import surroundings
surroundings.settle()
import httpx, requests
url = sys.argv[1]
print(urllib.request.urlopen(url).read(), httpx.get(url).content, requests.get(url).content)
"""


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("exceptions", [{}, {"NO_PROXY": "a.example"}, {"no_proxy": "a.example"}])
def test_no_client_asks_our_own_servers_through_a_proxy(page, tmp_path, name, exceptions):
    (port,) = free_ports(1)
    given = dict.fromkeys(UNSET, "") | {name: f"http://127.0.0.1:{port}"} | exceptions
    done = python(tmp_path, 60, "-c", ASK, page, PYTHONPATH=str(ROOT), **given)
    assert done.stdout == "b'here' b'here' b'here'\n", done.stderr


def test_hosts_that_the_user_exempts_from_the_proxy_stay_exempt(environment):
    environment.setenv("https_proxy", "http://proxy.example:3128")
    environment.setenv("NO_PROXY", "a.example, 10.0.0.1")
    surroundings.settle()
    surroundings.settle()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "a.example,10.0.0.1,127.0.0.1,localhost,::1"


def test_a_user_who_exempts_every_host_from_the_proxy_still_does(environment):
    environment.setenv("ALL_PROXY", "http://proxy.example:3128")
    environment.setenv("no_proxy", "*")
    surroundings.settle()
    assert os.environ["no_proxy"] == "*"


def test_without_a_proxy_no_host_is_exempted_from_one(environment):
    surroundings.settle()
    assert not {"no_proxy", "NO_PROXY"} & os.environ.keys()


SETTLED = """
from components.runtime import surroundings
surroundings.settle()
import getpass
from pathlib import Path
print(getpass.getuser(), Path.home())
"""


@needs_namespaces
@pytest.mark.parametrize(("user", "tools"), [([], "prefect, torch, mlflow"), (["USER=ann"], "os")])
def test_a_user_number_without_a_name_or_a_home_imports_all_tools(tmp_path, user, tools):
    (tmp_path / "params.yaml").write_text("")
    unset = [option for name in ("USER", "LOGNAME", "HOME") for option in ("-u", name)]
    command = [
        "env",
        *unset,
        f"PYTHONPATH={ROOT}",
        *user,
        *NAMELESS,
        sys.executable,
        "-c",
        f"{SETTLED}import {tools}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    name = "ann" if user else "uid-54321"
    assert done.stdout.split() == [name, str(tmp_path / "build/.home")], done.stderr


@needs_namespaces
def test_a_home_that_a_nameless_user_has_set_stays(tmp_path):
    (tmp_path / "params.yaml").write_text("")
    command = ["env", f"HOME={tmp_path}", f"PYTHONPATH={ROOT}", *NAMELESS, sys.executable, "-c", SETTLED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split()[1:] == [str(tmp_path)], done.stderr


@pytest.mark.parametrize(("given", "used"), [(None, "0"), ("1", "1")])
def test_ray_leaves_uv_out_unless_the_user_wants_it(environment, given, used):
    environment.delenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", raising=False)
    if given:
        environment.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", given)
    surroundings.settle()
    assert os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == used


TRAIN = """
from components.runtime import surroundings
surroundings.settle()
import sys
from pathlib import Path
from components.adapters import ray_train
from components.training.receiver import Receiver
ray_train.run(print, 1, Path(sys.argv[1]), Receiver(print), "by uv")
"""


@pytest.mark.long
def test_workers_start_in_a_process_that_uv_run_has_started(tmp_path):
    # By path, so that uv alone would start another Python, which has no Ray, and workers would never start.
    command = [Path(sys.executable).with_name("uv"), "run", "--no-project", "--offline", sys.executable]
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    env |= {"PYTHONPATH": str(ROOT), "PATH": os.defpath}
    env.pop("RAY_ENABLE_UV_RUN_RUNTIME_ENV", None)
    done = subprocess.run(
        [*command, "-c", TRAIN, tmp_path], cwd=ROOT, env=env, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


SETTINGS = ("environment", "local configuration")
DVC = """
from components.runtime import surroundings
surroundings.settle()
from dvc.repo import Repo
print(Repo(".").site_cache_dir)
"""


@pytest.mark.parametrize("setting", [None, *(pytest.param(each, marks=pytest.mark.long) for each in SETTINGS)])
def test_dvc_writes_where_no_other_account_can_or_where_the_user_says(tmp_path, setting):
    folder, own = tmp_path / "project", tmp_path / "own"
    folder.mkdir()
    (folder / "params.yaml").write_text("")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    if setting == "local configuration":
        (folder / ".dvc/config.local").write_text(f"[core]\n    site_cache_dir = {own}\n")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    env.pop("DVC_SITE_CACHE_DIR", None)
    if setting == "environment":
        env["DVC_SITE_CACHE_DIR"] = str(own)
    done = subprocess.run(
        [sys.executable, "-c", DVC], cwd=folder, env=env, umask=0o022, stdout=subprocess.PIPE,
        text=True, check=True,
    )  # fmt: skip
    expected = own if setting else folder / "build/.dvc-site-cache"
    assert done.stdout.startswith(f"{expected}/repo/")
    if not setting:
        made = [Path(done.stdout.strip()), *Path(done.stdout.strip()).parents][:4]
        assert [path.stat().st_mode & 0o022 for path in made if path.is_relative_to(folder)] == [0] * 4


PRINT = """
import sys
from pipelines import output
from components.runtime import surroundings
surroundings.settle()
output.keep_writable()
print("caf\\u00e9 \\u2026 \\udcff")
print("caf\\u00e9", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_characters_that_the_outputs_encoding_lacks_are_printed_as_escapes(tmp_path, settings):
    done = python(tmp_path, 60, "-c", PRINT, PYTHONPATH=str(ROOT), **settings)
    assert (done.returncode, done.stdout) == (0, "caf\\xe9 \\u2026 \\udcff\n"), done.stderr
    assert done.stderr == "caf\\xe9\n"


def test_a_file_name_that_is_not_utf8_is_printed_though_the_output_is_utf8(tmp_path):
    done = python(tmp_path, 60, "-c", PRINT, PYTHONPATH=str(ROOT), PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout) == (0, "café … \\udcff\n"), done.stderr


def test_an_error_handler_that_the_user_has_chosen_for_output_stays(tmp_path):
    done = python(tmp_path, 60, "-c", PRINT, PYTHONPATH=str(ROOT), PYTHONIOENCODING="ascii:replace")
    assert (done.returncode, done.stdout) == (0, "caf? ? ?\n"), done.stderr


@needs_namespaces
@pytest.mark.long
def test_a_run_registers_a_version_where_all_of_this_is_missing_at_once(project):
    (port,) = free_ports(1)
    unset = [option for name in ("USER", "LOGNAME", "HOME", *UNSET) for option in ("-u", name)]
    wrong = [f"{name}=http://127.0.0.1:{port}" for name in ("http_proxy", "https_proxy", "ALL_PROXY")]
    shell = [*READ_ONLY, f'{MOUNT} exec {" ".join(NAMELESS)} "$0" "$@"']
    done = subprocess.run(
        ["env", *unset, *wrong, "PYTHONIOENCODING=ascii", *shell, sys.executable, *PEDIGREE, "run", "digits"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "champion" in done.stdout
    assert "Traceback" not in done.stderr


CLOSED = """
import os
for number in (0, 1, 2):
    os.close(number)
import sys
sys.stdout = sys.stderr = None
from components.runtime import surroundings
surroundings.settle()
print("nobody reads this", flush=True)
with open(sys.argv[1], "w") as file:
    os.system("echo a child prints; echo and complains >&2")
    file.write(f"{file.fileno() > 2}")
"""


def test_what_is_printed_goes_nowhere_and_into_no_file_where_the_standard_streams_are_closed(tmp_path):
    python(ROOT, 60, "-c", CLOSED, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "True"
