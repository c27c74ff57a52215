"""`pedigree up`: Prefect's server, the deployments and MLflow's pages, all on 127.0.0.1, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import typer

from components import tasks
from components.adapters.mlflow_store import UI
from components.errors import PedigreeError
from pipelines import server

START_SECONDS = 120


def up(root: Path) -> None:
    """Start everything, print the addresses, and wait; whatever ends first, the others end with it.

    Raises:
        PedigreeError: a port is in use, or a program did not start or ended by itself.
    """
    from components.adapters import mlflow_store

    for address, what in ((server.ADDRESS, "Prefect's server"), (UI, "MLflow's pages")):
        _expect_free(address, what)
    server.settings()
    mlflow_store.connect(root)
    env = os.environ | {
        "PREFECT_API_URL": f"{server.ADDRESS}/api",
        "PREFECT_UI_API_URL": f"{server.ADDRESS}/api",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    prefect, mlflow = urlsplit(server.ADDRESS), urlsplit(UI)
    with ExitStack() as stack, _terminated_as_interrupted():
        commands = {
            "Prefect's server": f"-m prefect server start --host {prefect.hostname} --port {prefect.port}".split(),
            "MLflow's pages": [
                "-m",
                "mlflow",
                "ui",
                "--host",
                str(mlflow.hostname),
                "--port",
                str(mlflow.port),
            ],
        }
        children = {what: stack.enter_context(_child(command, env)) for what, command in commands.items()}
        _await(f"{server.ADDRESS}/api/health", "Prefect's server", children)
        _await(f"{UI}/health", "MLflow's pages", children)
        children["the deployments"] = stack.enter_context(_child(["-m", "pipelines.serve"], env))
        typer.echo(f"Prefect      {server.ADDRESS}")
        typer.echo(f"MLflow       {UI}")
        for name in tasks.names(root):
            typer.echo(f"deployment   prefect deployment run '{name}/local' --watch")
        typer.echo("Ctrl-C takes all of it down.")
        _wait(children)


def _expect_free(address: str, what: str) -> None:
    parts = urlsplit(address)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(parts.hostname), parts.port or 0))
        except OSError:
            raise PedigreeError(
                f"port {parts.port} on {parts.hostname} is in use, and {what} need it: "
                "is another `pedigree up` running? End what listens there and start again"
            ) from None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, also where a shell had us ignore that one (`pedigree up &`)."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _child(arguments: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module as a child that is gone, with all of its own children, when the block ends."""
    # A session of its own: Ctrl-C in the terminal reaches only us, and we end the children in order.
    child = subprocess.Popen([sys.executable, *arguments], env=env, start_new_session=True)
    try:
        yield child
    finally:
        end_tree(child.pid)
        child.wait()


def end_tree(pid: int, seconds: float = 8) -> None:
    """End a process and all of its descendants, the hard way when they do not go by themselves."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=seconds)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _await(url: str, what: str, children: dict[str, subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        _expect_alive(children)
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - one of our own addresses
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise PedigreeError(f"{what} did not answer at {url} within {START_SECONDS} s: look at the lines above")


def _expect_alive(children: dict[str, subprocess.Popen[bytes]]) -> None:
    for what, child in children.items():
        if child.poll() is not None:
            raise PedigreeError(f"{what} ended with exit code {child.returncode}: look at the lines above")


def _wait(children: dict[str, subprocess.Popen[bytes]]) -> None:
    try:
        while True:
            _expect_alive(children)
            time.sleep(0.5)
    except KeyboardInterrupt:
        typer.echo("taking all of it down")
