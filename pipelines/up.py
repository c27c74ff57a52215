"""`pedigree up`: Prefect's server, the deployments and MLflow's pages, all on 127.0.0.1, until Ctrl-C."""

import contextvars
import time
from functools import partial
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import typer

from components import tasks
from components.adapters import mlflow_store
from components.adapters.mlflow_store import UI
from pipelines import crashed, server
from pipelines.children import Children, environment, expect_free

EVERY_SECONDS = 10.0
"""Between two looks for flows whose processes are gone."""


def up(root: Path) -> None:
    """Start everything, print the addresses, and wait; what ends by itself is started again.

    Raises:
        PedigreeError: a port is in use, or a program does not start, or ends again and again.
    """
    crashed.end_children(root)
    for address, needs in ((server.ADDRESS, "Prefect's server needs"), (UI, "MLflow's pages need")):
        remedy = "is another `pedigree up` running? End what listens there and start again"
        expect_free(address, needs, remedy)
    server.settings()
    mlflow_store.connect(root)
    api = f"{server.ADDRESS}/api"
    env = environment(PREFECT_API_URL=api, PREFECT_UI_API_URL=api)
    prefect, mlflow = urlsplit(server.ADDRESS), urlsplit(UI)
    with Children(env, partial(crashed.note_children, root)) as children:
        # Each takes seconds: they start side by side.
        children.start(
            "Prefect's server",
            f"-m prefect server start --host {prefect.hostname} --port {prefect.port}".split(),
            f"{api}/health",
        )
        # One worker: it answers in threads, and MLflow's four take 6 s and 750 MB more.
        pages = f"-m mlflow ui --workers 1 --host {mlflow.hostname} --port {mlflow.port}".split()
        children.start("MLflow's pages", pages, f"{UI}/health")
        children.wait()
        with server.at(api):
            server.set_up()
            crashed.tidy_own_server(root)  # before anything new is begun
            children.start("the deployments", ["-m", "pipelines.serve"])
            typer.echo(f"Prefect      {server.ADDRESS}")
            typer.echo(f"MLflow       {UI}")
            for name in tasks.names(root):
                typer.echo(f"deployment   prefect deployment run '{name}/local' --watch")
            typer.echo("Ctrl-C takes all of it down.")
            children.watch(_Looks(root, children))


class _Looks:
    """Looks for what was cut off, now and then, in a thread: a server that is away holds nothing else up."""

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
        with_settings = contextvars.copy_context().run  # the server's address is among them
        self._look = Thread(
            target=with_settings, args=(crashed.tidy_own_server, self._root), name="tidy", daemon=True
        )
        self._look.start()
