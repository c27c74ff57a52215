"""While a training runs, another account of the machine can use and replace nothing of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.runtime import processes
from tests.conftest import ROOT
from tests.running import PEDIGREE

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        os.getuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))),
        reason="only root can become another account, and have folders and a network of its own",
    ),
]
OWN = """
umask 022
ip link set lo up
mount -t tmpfs -o mode=1777 tmpfs /mnt
cp -a "$PROJECT" /mnt/project
mount --move /mnt /tmp
for shared in /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$shared"; done
cd /tmp/project
exec "$@"
"""
"""Runs a command in a copy of a project, with empty shared folders and a network in which no other test is."""
SECONDS = 300
LASTING = {"workers": 2, "epochs": 100_000, "checkpoint_seconds": 600}
SETTINGS = [f"--set=train.{name}={value}" for name, value in LASTING.items()]
COMMANDS = {"run": ["run", "digits", *SETTINGS], "up": ["up"]}


@pytest.fixture(scope="module", params=COMMANDS)
def found(request, project, tmp_path_factory):
    """What another account found while `pedigree run` or a flow of `pedigree up` trained, which then went on."""
    log = tmp_path_factory.mktemp("accounts") / "log"
    command = [sys.executable, *PEDIGREE, *COMMANDS[request.param]]
    with log.open("w") as out:
        process = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-ec", OWN, "sh", *command],
            env=os.environ | {"PROJECT": str(project), "PYTHONPATH": "/tmp/project", "TMPDIR": "/tmp"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        root = Path(f"/proc/{process.pid}/root/tmp/project/build")
        inside = ["nsenter", f"--target={process.pid}", "--net", "--mount"]
        if request.param == "up":
            there = [*inside, "sh", "-c", 'cd /tmp/project && exec "$@"', "sh", sys.executable, "-m", "prefect"]
            submit = [*there, "deployment", "run", "digits/local", "--param", f"train={json.dumps(LASTING)}"]
            wait_for(lambda: subprocess.run(submit, capture_output=True, check=False).returncode == 0, process, log)
        events = wait_for(lambda: updates(root), process, log)
        stranger = [sys.executable, "-m", "tests.accounts.stranger", str(process.pid)]
        # Without this variable it is not found: whoever enters other folders is at their root.
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([*inside, *stranger], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: updates(root) > events, process, log)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        yield {"command": request.param, **json.loads(done.stdout)}
    finally:
        processes.end(processes.tree(process.pid))


def updates(build: Path) -> int:
    """Return how many bytes of events workers have written."""
    return sum(file.stat().st_size for file in build.rglob("events.jsonl"))


def wait_for(what, process, log):
    """Wait until a call returns something, and return it."""
    end = time.monotonic() + SECONDS
    while not (found := what()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
    return found


RAY = ("driver", "gcs_server", "raylet", "ray::")
"""Names of the processes whose ports are Ray's: the driver, its programs and its workers."""


def test_no_port_of_ray_answers_without_the_key(found):
    silent = {name for name, answers in found["answers"].items() if not answers}
    assert {name for name in found["answers"] if name.startswith(RAY) and "Agent" not in name} <= silent
    (agent,) = (answers for name, answers in found["answers"].items() if "RuntimeEnvAgent" in name)
    assert agent == ["GET / 401", "GET /api/admin/settings 401", "POST /api/flow_runs/filter 401"]


def test_who_has_the_key_needs_the_token_too(found):
    unauthenticated = "16"
    assert found["with the key"] == [unauthenticated]
    assert "done" in found["with key and token"], "the calls are such that Ray would carry them out"


def test_prefect_asks_for_a_password(found):
    (answers,) = (answers for name, answers in found["answers"].items() if name.startswith("prefect"))
    assert "GET /api/admin/settings 401" in answers
    assert "POST /api/flow_runs/filter 403" in answers  # it looks for a token against forged requests first


def test_mlflows_pages_ask_for_a_password(found):
    pages = [answers for name, answers in found["answers"].items() if name.startswith("mlflow")]
    without = ["GET / 401", "GET /api/admin/settings 401", "POST /api/flow_runs/filter 401"]
    assert pages == ([without] if found["command"] == "up" else [])


def test_no_socket_can_be_connected_to_or_renamed(found):
    assert any(name.endswith("/sockets/plasma_store") for name in found["sockets"])
    assert found["connected"] == []


def test_no_file_in_the_project_or_in_shared_folders_can_be_written_or_replaced(found):
    assert found["writable"] == []


def test_no_secret_is_in_arguments_and_no_environment_can_be_read(found):
    assert found["arguments"] == []
    assert found["environments"] == []
