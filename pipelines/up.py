"""`pedigree up`: the Prefect server, the deployments and the MLflow UI on 127.0.0.1, until Ctrl-C."""

import contextvars
import socket
import time
from functools import partial
from pathlib import Path
from threading import Thread

from components import models
from components.adapters import mlflow_store
from components.errors import PedigreeError
from components.runtime import addresses, locks, login, processes
from pipelines import accelerator, crashed, output, prefect_profile, server, ui
from pipelines.children import Children, listen

EVERY_SECONDS = 10.0
"""Seconds between two checks for flows whose processes are gone."""
LOCK = Path("build", ".up.lock")
"""Below the project's folder. It allows one `pedigree up` at a time, whatever its ports."""


def up(root: Path, prefect_port: int, mlflow_port: int) -> None:
    """Start everything, print the addresses, and wait; restart programs that exit.

    Raises:
        PedigreeError: this checkout's `up` already runs, a port is in use, or a program does not start or keeps
            exiting.
    """
    (root / LOCK).parent.mkdir(exist_ok=True)
    with locks.if_free(root / LOCK) as free:
        if not free:
            address = addresses.prefect(root)
            state = (
                f"already runs in {root}, with Prefect at {address}" if address else f"starts or stops in {root}"
            )
            raise PedigreeError(f"`pedigree up` {state}: use that one, or stop it with Ctrl-C and start again")
        _up(root, addresses.url(prefect_port), addresses.url(mlflow_port))


def _up(root: Path, prefect: str, mlflow: str) -> None:
    crashed.end_children(root)
    with (
        listen(prefect, "Prefect's server needs", "--prefect-port") as at_prefect,
        listen(mlflow, "the MLflow UI needs", "--mlflow-port") as at_mlflow,
    ):
        _serve(root, (prefect, at_prefect), (mlflow, at_mlflow))


def _serve(root: Path, of_prefect: tuple[str, socket.socket], of_mlflow: tuple[str, socket.socket]) -> None:
    """Serve at two addresses, with the sockets that listen there."""
    (prefect, at_prefect), (mlflow, at_mlflow) = of_prefect, of_mlflow
    server.settings()
    server.check_proxies()
    server.check_database()
    mlflow_store.connect(root)
    api, its_login = f"{prefect}/api", login.of(root)
    env = processes.environment(**server.client(api, its_login), **ui.environment(its_login))
    with Children(env, partial(crashed.note_children, root)) as children:
        # Started in parallel, as each takes seconds.
        serve = ["-m", "pipelines.prefect_server", "up"]
        children.start("Prefect's server", serve, f"{api}/health", listening=at_prefect)
        ui.start(children, mlflow, at_mlflow)
        children.wait()
        with (
            server.at(api, its_login),
            addresses.published(root, mlflow, prefect),  # first: without it, another command clears the profile
            prefect_profile.holding(api, its_login),
        ):
            accelerator.set_up()
            crashed.clean_up_own_server(root)  # before anything new is started
            children.start("the deployments", ["-m", "pipelines.deployments"])
            output.echo(f"Prefect      {prefect}")
            output.echo(f"MLflow       {mlflow}")
            output.echo(f"login        user:password is in {login.where()}")
            for name in models.names(root):
                output.echo(f"deployment   prefect deployment run '{name}/local' --watch")
            output.echo("Press Ctrl-C to stop all of it.")
            children.watch(_Checks(root, children))


class _Checks:
    """Checks for interrupted flow runs now and then, in a thread so that an unreachable server blocks nothing."""

    def __init__(self, root: Path, children: Children) -> None:
        self._root, self._children, self._looked = root, children, time.monotonic()
        self._look: Thread | None = None

    def __call__(self) -> None:
        if time.monotonic() - self._looked < EVERY_SECONDS:
            return
        self._looked = time.monotonic()
        crashed.note_children(self._root, self._children.family())
        if self._look and self._look.is_alive():
            return
        with_settings = contextvars.copy_context().run  # they include the server's address
        self._look = Thread(
            target=with_settings, args=(crashed.clean_up_own_server, self._root), name="clean-up", daemon=True
        )
        self._look.start()
