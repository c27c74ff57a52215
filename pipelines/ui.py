"""`pedigree ui`: the MLflow UI of this checkout's runs and versions on 127.0.0.1, until Ctrl-C."""

import base64
import os
import socket
import urllib.request
from pathlib import Path

from components.adapters import mlflow_store
from components.runtime import addresses, login, presence, processes
from components.runtime.processes import Process
from pipelines import output
from pipelines.children import Children, listen

ANSWER_SECONDS = 5
"""Seconds in which pages that are already served have to answer."""


def ui(root: Path, port: int) -> None:
    """Start the MLflow UI, print its address, and wait; only print it if this checkout already serves it there.

    Raises:
        PedigreeError: the port is in use, or the UI does not start or keeps exiting.
    """
    address = addresses.url(port)
    if other := served_by(root, address):
        output.echo(f"MLflow       {address}, which this checkout already serves (pid {other.pid})")
        output.echo(f"login        user:password is in {login.where()}")
        return
    presence.end_orphans(root)  # such as the server of a `pedigree ui` that was killed
    with listen(address, "the MLflow UI needs", "--port") as listening:
        _ui(root, address, listening)


def _ui(root: Path, address: str, listening: socket.socket) -> None:
    mlflow_store.connect(root)
    env = processes.environment(**environment(login.of(root)))
    with Children(env, presence.notes(root, "ui")) as children:
        start(children, address, listening)
        children.wait()
        with addresses.published(root, address):
            output.echo(f"MLflow       {address}")
            output.echo(f"login        user:password is in {login.where()}")
            output.echo("Press Ctrl-C to stop.")
            children.watch()


def served_by(root: Path, address: str) -> Process | None:
    """Return the process of this checkout that serves the MLflow UI at an address, if it answers to the login.

    Only a process that has published the address is sent the login: another account may listen there.
    """
    other, its_login = addresses.publisher(root, address), login.read(root)
    if other is None or its_login is None:
        return None
    basic = base64.b64encode(its_login.encode()).decode()
    request = urllib.request.Request(f"{address}/version", headers={"Authorization": f"Basic {basic}"})  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()  # noqa: S310 - our own address
    except OSError:
        return None
    return other


def start(children: Children, address: str, listening: socket.socket) -> None:
    """Start the MLflow UI as one of these children, on a socket that listens at its address."""
    # One process, which answers in threads: MLflow's default of four takes 6 s and 750 MB more.
    quiet = ["-W", "ignore:starlette.middleware.wsgi is deprecated"]  # MLflow's matter, not the user's
    pages = [*quiet, "-m", "components.adapters.mlflow_app"]
    children.start("the MLflow UI", pages, f"{address}/health", listening=listening)


def environment(its_login: str) -> dict[str, str]:
    """Return the login and MLflow's checks of hosts and origins, which are off or wider in some environments.

    The pages store no artifacts for clients, which would be in the project, and run no jobs for them. The names in
    MLFLOW_SERVER_ALLOWED_HOSTS, such as a proxy's, are accepted, too, and pages from there.
    """
    given = os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", "").split(",")
    named = [name.strip() for name in given if name.strip()]
    # With any port, as patterns of fnmatch. MLflow's own list has all private addresses, too.
    local = [*addresses.HOSTS, *(f"{host.replace('[', '[[]')}:*" for host in addresses.HOSTS)]
    origins = [f"{scheme}://{name}" for name in named for scheme in ("https", "http")]
    return {
        login.VARIABLE: its_login,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*local, *named]),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "SAMEORIGIN",
    }
