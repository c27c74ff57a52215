"""`pedigree up`: the Prefect server, the deployments and the MLflow UI on 127.0.0.1, until Ctrl-C."""

import logging
import socket
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from components import models
from components.adapters import mlflow_store
from components.errors import PedigreeError
from components.runtime import addresses, locks, login, presence, processes
from components.runtime.background import in_thread
from pipelines import accelerator, crashed, output, prefect_profile, server, ui
from pipelines.children import Children, listen

log = logging.getLogger("pedigree.up")

EVERY_SECONDS = 10.0
"""Seconds between two checks for flows whose processes are gone."""
LOCK = Path("build", ".up.lock")
"""Below the project's folder. It allows one `pedigree up` at a time, whatever its ports."""
CHILDREN = Path("build", ".up")
"""Below the project's folder: records what it has started. Not in `presence.FOLDER`, as the flows of a killed `up`
go on until the next one starts."""


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
    if ended := presence.end_noted(root / CHILDREN):
        log.info("ended %d processes left by an earlier `pedigree up`", len(ended))
    with ExitStack() as sockets:
        at_prefect = sockets.enter_context(listen(prefect, "Prefect's server needs", "--prefect-port"))
        _serve(root, prefect, at_prefect, _Pages(root, mlflow, sockets))


class _Pages:
    """The MLflow UI: that of this checkout's `pedigree ui` while it runs, otherwise a child of our own."""

    def __init__(self, root: Path, address: str, sockets: ExitStack) -> None:
        self.address = address
        self._root, self._sockets, self._said = root, sockets, ""
        self.other = ui.served_by(root, address)
        self._listening = None if self.other else self._listen()

    def _listen(self) -> socket.socket:
        return self._sockets.enter_context(listen(self.address, "the MLflow UI needs", "--mlflow-port"))

    def start(self, children: Children) -> None:
        """Start the child, unless the other one runs."""
        if self._listening:
            ui.start(children, self.address, self._listening)

    def take_over(self, children: Children) -> None:
        """Start the child once the other one has ended."""
        if self.other is None or presence.lives(self._root, self.other):
            return
        try:
            self._listening, self.other = self._listen(), None
        except PedigreeError as error:
            if str(error) != self._said:
                log.warning("`pedigree ui` has ended, and its pages cannot be served here: %s", error)
                self._said = str(error)
        self.start(children)


def _serve(root: Path, prefect: str, at_prefect: socket.socket, pages: _Pages) -> None:
    """Serve Prefect at an address, with the socket that listens there, and MLflow's pages."""
    server.settings()
    server.check_proxies()
    server.check_database()
    mlflow_store.connect(root)
    api, its_login = f"{prefect}/api", login.of(root)
    env = processes.environment(**server.client(api, its_login), **ui.environment(its_login))
    with Children(env, root / CHILDREN) as children:
        # Started in parallel, as each takes seconds.
        serve = ["-m", "pipelines.prefect_server", "up"]
        children.start("Prefect's server", serve, f"{api}/health", listening=at_prefect)
        pages.start(children)
        children.wait()
        with (
            server.at(api, its_login),
            addresses.published(root, pages.address, prefect),  # first: else another command clears the profile
            prefect_profile.holding(api, its_login),
        ):
            accelerator.set_up()
            crashed.clean_up_own_server(root)  # before anything new is started
            children.start("the deployments", ["-m", "pipelines.deployments"])
            output.echo(f"Prefect      {prefect}")
            shared = f", which `pedigree ui` serves (pid {pages.other.pid})" if pages.other else ""
            output.echo(f"MLflow       {pages.address}{shared}")
            output.echo(f"login        user:password is in {login.where()}")
            for name in models.names(root):
                output.echo(f"deployment   prefect deployment run '{name}/local' --watch")
            output.echo("Press Ctrl-C to stop all of it.")
            in_thread(partial(_clean_up, root), "clean-up")
            children.watch(partial(pages.take_over, children))


def _clean_up(root: Path) -> None:
    """Check for interrupted flow runs forever; in a thread, so that an unreachable server blocks nothing."""
    while True:
        time.sleep(EVERY_SECONDS)
        crashed.clean_up_own_server(root)
