"""Served equals evaluated: `pedigree serve`, one server a task, in a project whose own code has moved on."""

import base64
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.conftest import TASKS, listening, tiny, with_broken_code
from tests.running import PEDIGREE

SECONDS = 120
EACH = [pytest.param(name, marks=[] if name == "vision" else pytest.mark.long) for name in TASKS]
"""A server takes seconds to start: those of the other tasks wait for `make test-long`."""


@pytest.fixture(scope="module")
def server_of(chain_of, tmp_path_factory):
    """A task's process, address and log; started when it is first asked for."""
    chains = [chain_of(name) for name in TASKS]
    folder = with_broken_code(chains[0].root, tmp_path_factory.mktemp("serve") / "project")
    processes = []

    @cache
    def started(name):
        with ExitStack() as stack:
            port = free_port(stack)
        log = folder / f"{name}.log"
        process = start(folder, log, name, "--port", str(port))
        processes.append(process)
        end = time.monotonic() + SECONDS
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        return process, f"http://127.0.0.1:{port}", log

    yield started
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def free_port(stack: ExitStack) -> int:
    probe = stack.enter_context(socket.socket())
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def start(folder, log, *arguments):
    with log.open("w") as out:
        return subprocess.Popen(
            [sys.executable, *PEDIGREE, "serve", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "MLFLOW_HOST": "0.0.0.0", "UVICORN_HOST": "0.0.0.0"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def ask(address, rows, settings=None):
    plain = [
        {name: base64.b64encode(v).decode() if isinstance(v, bytes) else v for name, v in row.items()}
        for row in rows
    ]
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps({"dataframe_records": plain, "params": settings or {}}).encode(),
        headers={"content-type": "application/json"},
    )
    return json.load(urllib.request.urlopen(request))["predictions"]


@pytest.mark.parametrize("name", EACH)
def test_the_server_answers_the_whole_test_split_as_evaluation_did(server_of, chain_of, name):
    chain, case = chain_of(name), tiny(name)
    rows, settings = case.requests(chain.raw, chain.evaluated.folder)
    case.check(ask(server_of(name)[1], rows, settings), chain.evaluated.folder)


@pytest.mark.parametrize("name", EACH)
def test_the_request_that_is_printed_can_be_pasted(server_of, chain_of, name):
    _, address, log = server_of(name)
    assert f"{name} version {chain_of(name).registered.version} answers at {address};" in log.read_text()
    line = re.search("^  (curl .*)$", log.read_text(), re.MULTILINE)
    # As a shell reads it, and as curl would send it: curl itself is not on every machine.
    curl, url, flag, header, data, body = shlex.split(line[1])
    assert (curl, flag, data, body[0]) == ("curl", "-H", "-d", "@")
    request = urllib.request.Request(url, Path(body[1:]).read_bytes(), dict([header.split(": ")]))
    assert len(json.load(urllib.request.urlopen(request))["predictions"]) == 1


def test_a_server_listens_on_loopback_alone(server_of):
    assert listening(server_of("vision")[0].pid) == {"127.0.0.1"}


def test_the_server_takes_an_image_of_any_size_and_mode(server_of):
    for mode, size in (("RGBA", (300, 200)), ("L", (28, 28)), ("P", (31, 500)), ("CMYK", (64, 64))):
        data = io.BytesIO()
        Image.new(mode, size).save(data, "TIFF" if mode == "CMYK" else "PNG")
        (answer,) = ask(server_of("vision")[1], [{"image": data.getvalue()}])
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_what_is_no_image_is_refused_with_the_reason(server_of):
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server_of("vision")[1], [{"image": b"this is not an image"}])
    assert caught.value.code == 400
    said = json.load(caught.value)["message"]
    assert said.endswith("Error: row 0: the image cannot be used: not an image; send another")


def test_a_port_in_use_is_a_sentence(server_of, chain, tmp_path):
    port = server_of("vision")[1].rpartition(":")[2]
    process = start(chain.root, tmp_path / "log", "vision", "--port", port)
    assert process.wait(60) == 1
    said = (tmp_path / "log").read_text()
    assert said.startswith(f"error: port {port} on 127.0.0.1 is in use, and the server needs it: choose another")


def test_an_unknown_version_is_a_sentence(chain, tmp_path):
    with ExitStack() as stack:
        port = free_port(stack)
    process = start(chain.root, tmp_path / "log", "vision/99", "--port", str(port))
    assert process.wait(60) == 1
    assert (tmp_path / "log").read_text().startswith("error: there is no vision/99: vision has the versions 1")


@pytest.mark.parametrize(
    ("name", "number"), [("vision", signal.SIGINT), pytest.param("speech", signal.SIGTERM, marks=pytest.mark.long)]
)
def test_ctrl_c_or_termination_takes_the_server_and_its_files_down(server_of, name, number):
    process, _, log = server_of(name)
    family = psutil.Process(process.pid).children(recursive=True)
    folder = Path(re.search("@(.*)/", log.read_text())[1])
    assert family
    assert folder.is_dir()
    process.send_signal(number)
    assert process.wait(30) == 0, log.read_text()
    assert not any(each.is_running() for each in family)
    assert not folder.exists()
