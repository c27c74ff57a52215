"""What `pedigree up` starts is known from its first moment, and no other process can listen in its stead."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from components.errors import PedigreeError
from components.runtime import presence, processes
from pipelines import children as of_up
from pipelines.children import Children, listen
from tests.running import free_ports

SERVER_THAT_NEVER_ANSWERS = """
from pathlib import Path
from components.runtime import processes
from pipelines.children import Children
with Children(processes.environment(), Path("notes")) as children:
    children.start("it", ["-c", "import time; time.sleep(600)"], "http://127.0.0.1:1/health")
    children.wait()
"""


def test_what_was_only_starting_when_its_parent_was_killed_is_recorded_and_can_be_ended(tmp_path):
    env = os.environ | {"PYTHONPATH": str(Path.cwd())}
    up = subprocess.Popen([sys.executable, "-c", SERVER_THAT_NEVER_ANSWERS], cwd=tmp_path, env=env)
    while not list(tmp_path.glob("notes/*")):
        assert up.poll() is None
        time.sleep(0.05)
    (child,) = processes.tree(up.pid)[1:]
    up.send_signal(signal.SIGKILL)
    up.wait()
    assert not child.gone
    presence.end_noted(tmp_path / "notes")
    assert child.gone


def test_what_a_child_that_ended_too_early_had_started_is_ended_too(tmp_path):
    note = tmp_path / "grandchild"
    begins = (
        "import subprocess, sys, time, pathlib; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"pathlib.Path({str(note)!r}).write_text(str(p.pid)); time.sleep(2)"
    )

    def run():
        with Children(processes.environment()) as children:
            children.start("it", ["-c", begins])
            children.start("another", ["-c", "import time; time.sleep(600)"], "http://127.0.0.1:1/health")
            children.wait()

    with pytest.raises(PedigreeError, match="it ended with exit code 0"):
        run()
    assert not psutil.pid_exists(int(note.read_text()))


SERVER_ON_A_SOCKET = """
import http.server, os, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())
server = http.server.HTTPServer(("", 0), Answer, bind_and_activate=False)
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.serve_forever()
"""


def test_no_other_process_can_listen_before_a_child_starts_and_while_it_restarts(caplog):
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"

    def taken() -> bool:
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
        return True

    def answer() -> int:
        with urllib.request.urlopen(address, timeout=20) as said:
            return int(said.read())

    with listen(address, "it needs", "--port") as listening, Children(processes.environment()) as children:
        assert taken()
        children.start("it", ["-c", SERVER_ON_A_SOCKET], address, listening=listening)
        children.wait()
        first = answer()
        os.kill(first, signal.SIGKILL)
        while psutil.pid_exists(first) and psutil.Process(first).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
        assert taken()
        children.keep_alive()
        assert taken()
        assert answer() != first  # a request waits for the child that comes next
    with socket.create_server(("127.0.0.1", port)):  # as nothing listens there any more
        pass


def test_a_child_that_does_not_take_connections_yet_does_not_pass_for_one_that_answers():
    (port,) = free_ports(1)
    with listen(f"http://127.0.0.1:{port}", "it needs", "--port"):
        assert not of_up._answers(f"http://127.0.0.1:{port}/health")
