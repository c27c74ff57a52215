"""`pedigree up` in a project of a test's own, on ports of its own, and what people do with it."""

import base64
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.runtime import login

PEDIGREE = ["-c", "from pipelines.cli import main; main()"]
"""Not the installed command: this takes the code of the current folder."""
DVC = ["-c", "from components.adapters.dvc_program import main; import sys; sys.exit(main())"]
"""This environment's `dvc`, with the code of the current folder."""
UP_SECONDS = 200


def install(project: Path) -> Path:
    """Write a program that runs the code of the current folder, .venv/bin/pedigree; return the folder it is in."""
    folder = project / ".venv" / "bin"
    folder.mkdir(parents=True)
    program = folder / "pedigree"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *PEDIGREE])} "$@"\n')
    program.chmod(0o755)
    return folder


def python(folder: Path, seconds: float, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a project to its end, as a person would in a terminal without colours."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def pedigree(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one of pedigree's commands in a project to its end."""
    return python(folder, 120, *PEDIGREE, *arguments, **env)


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens at."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass
class Up:
    """A `pedigree up` that runs."""

    folder: Path
    process: subprocess.Popen[bytes]
    ports: tuple[int, int]
    """Prefect's server, MLflow's pages."""

    def api(self, path: str, body: dict | None = None, seconds: float = 60) -> object:
        """Ask Prefect's server, which may be down for a while."""
        end = time.monotonic() + seconds
        while True:
            try:
                token = {} if body is None else self.token()
                return self._ask(path, body, token)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def token(self) -> dict[str, str]:
        """Return the headers that Prefect's server wants with what changes something, against forged requests."""
        client = str(uuid.uuid4())
        token = self._ask(f"csrf-token?client={client}", None, {})
        return {"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": client}

    def _ask(self, path: str, body: dict | None, headers: dict[str, str]) -> object:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[0]}/api/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", "Authorization": basic(self.folder)} | headers,
        )
        return json.load(urllib.request.urlopen(request, timeout=10))

    def deployment(self, task: str, name: str = "local") -> dict:
        """Return what Prefect has of a model's deployment, once it is there, seconds after the servers."""
        end = time.monotonic() + UP_SECONDS
        while True:
            try:
                return self.api(f"deployments/name/{task}/{name}", seconds=0)
            except OSError:
                assert time.monotonic() < end, self.log()
                time.sleep(0.5)

    def submit(self, name: str, parameters: dict) -> str:
        """Ask for a flow run of a model's deployment; return its id."""
        deployment = self.deployment(name)
        created = self.api(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
        return str(created["id"])

    def state(self, flow_run: str) -> str:
        """Return a flow run's state: COMPLETED, RUNNING, …"""
        return str(self.api(f"flow_runs/{flow_run}")["state_type"])

    def messages(self, flow_run: str) -> str:
        """Return what a flow run has logged."""
        logs = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(entry["message"] for entry in self.api("logs/filter", logs))

    def wait_for(self, flow_run: str, what: Callable[[], bool]) -> None:
        """Wait until something is so with a flow run."""
        end = time.monotonic() + UP_SECONDS
        while not what():
            assert time.monotonic() < end, f"{self.state(flow_run)}\n{self.messages(flow_run)}"
            time.sleep(0.3)

    def log(self) -> str:
        """Return what it has printed."""
        return (self.folder / "up.log").read_text()


def basic(folder: Path) -> str:
    """Return the Authorization header that the servers of a project want."""
    return f"Basic {base64.b64encode(login.of(folder).encode()).decode()}"


@contextmanager
def up(folder: Path, ports: tuple[int, int], **env: str) -> Iterator[Up]:
    """Run `pedigree up` in a project on these ports, until the block ends."""
    prefect, mlflow = map(str, ports)
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *PEDIGREE, "up", "--prefect-port", prefect, "--mlflow-port", mlflow],
            cwd=folder,
            env=os.environ | env,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running = Up(folder, process, ports)
    try:
        end = time.monotonic() + UP_SECONDS
        while "Ctrl-C" not in running.log():
            assert process.poll() is None, running.log()
            assert time.monotonic() < end, running.log()
            time.sleep(0.2)
        yield running
    except BaseException:
        print(running.log()[-6000:])
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)
