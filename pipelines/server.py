"""Which Prefect server the flows use. Prefect reads its settings when it is imported, so this comes first."""

import atexit
import logging
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from components import files
from components.errors import PedigreeError, without_login

T = TypeVar("T")

log = logging.getLogger("pedigree.server")

ADDRESS = "http://127.0.0.1:4200"
"""Where `pedigree up` serves Prefect; the same as in pyproject.toml, for `prefect deployment run`."""


def answers(api: str) -> bool:
    """Tell whether a Prefect server answers at this API address."""
    try:
        urllib.request.urlopen(f"{without_login(api).rstrip('/')}/health", timeout=3).close()  # noqa: S310 - the user's own address
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def connected(check: Callable[[], T], load: Callable[[], object]) -> Iterator[T]:
    """Use the server at PREFECT_API_URL, else the one that `pedigree up` started, else one of this process's own.

    Args:
        check: What it returns is given to the block; where it raises, a server of our own makes no tables.
        load: Called while that one starts.

    Raises:
        PedigreeError: PREFECT_API_URL names a server that does not answer, or our own does not start.
        OSError: Prefect's folder cannot be written.
    """
    settings()
    api = os.environ.get("PREFECT_API_URL")
    if api and not answers(api):
        raise PedigreeError(
            f"Prefect does not answer at {api}: start it with `pedigree up`, "
            "or unset PREFECT_API_URL to run without a server"
        )
    if api or answers(f"{ADDRESS}/api"):
        checked = check()
        _check_home()
        yield checked
        return
    own = _Own.begin()
    checked = check()
    _check_home()
    own.start()
    load()
    own.wait()
    token = _OWN.set(True)
    try:
        with at(own.api):
            yield checked
    finally:
        _OWN.reset(token)


_OWN: ContextVar[bool] = ContextVar("own", default=False)
"""The server is this process's own."""
START_SECONDS = 180
"""The first start in a folder makes tables."""


@dataclass(frozen=True)
class _Own:
    """A server that ends with this process, however that ends: its standard input does."""

    program: subprocess.Popen[bytes]
    api: str

    @classmethod
    def begin(cls) -> "_Own":
        """Begin one, which ends after all that has something to tell it when this process does."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            program = subprocess.Popen(
                [sys.executable, "-m", "pipelines.temporary_server", f"{listening.fileno()}"],
                stdin=subprocess.PIPE,
                pass_fds=[listening.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal reaches us, who have something to tell it still
            )
            own = cls(program, f"http://127.0.0.1:{listening.getsockname()[1]}/api")
        atexit.register(own.end)
        return own

    def start(self) -> None:
        """Have it start; until then it only imports."""
        assert self.program.stdin is not None
        with suppress(BrokenPipeError):  # it ended, which whoever waits is told
            self.program.stdin.write(b"start\n")
            self.program.stdin.flush()

    def wait(self) -> None:
        """Wait until it answers: its socket is there already, and is closed when it ends."""
        try:
            urllib.request.urlopen(f"{self.api}/health", timeout=START_SECONDS).close()  # noqa: S310 - our own
        except OSError as error:
            raise PedigreeError(f"Prefect's server does not start ({error}): look at the lines above") from error

    def end(self) -> None:
        """End it."""
        assert self.program.stdin is not None
        with suppress(BrokenPipeError):
            self.program.stdin.close()
        self.program.terminate()  # while it only imports it does not read
        try:
            self.program.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.program.kill()
            self.program.wait()


ROOM = 1 << 20
"""Bytes that Prefect's database has to have left on its disk."""


def _check_home() -> None:
    """Ask for a folder that can be written: a server would say so in the middle of a traceback.

    Raises:
        OSError: it cannot, or its disk is full.
    """
    from prefect.settings import PREFECT_HOME

    home = PREFECT_HOME.value()
    home.mkdir(parents=True, exist_ok=True)
    with files.new_beside(home / "room") as room:
        room.write_bytes(bytes(ROOM))


@contextmanager
def at(api: str) -> Iterator[None]:
    """Use the server at this address."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(updates={PREFECT_API_URL: api}):
        yield


ACCELERATOR = "accelerator"
"""Prefect's global concurrency limit: so many trainings of flows at a time; one, until somebody raises it."""
LEASE_SECONDS = 60
"""After which the slot of a flow whose process is gone is free again."""


def set_up() -> None:
    """Make what the flows need on a server that stays: the limit, unless it is there with a value of somebody's."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(ACCELERATOR)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):  # another process was first
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=ACCELERATOR, limit=1))


@contextmanager
def accelerator() -> Iterator[None]:
    """Train while no more flows do than the limit of the server allows; whoever waits says so.

    A server that lives and dies with one process has nobody else to serve, and keeps no leases.
    """
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.settings import PREFECT_API_URL

    if _OWN.get() or not PREFECT_API_URL.value():
        yield
        return
    set_up()
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(ACCELERATOR)
    if limit.active_slots >= limit.limit:
        log.info("waiting for the accelerator, which %d other flow(s) train on", limit.active_slots)
    # A renewal that fails, the server being away for a while, does not end the training.
    with concurrency(ACCELERATOR, lease_duration=LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False):
        yield


def settings() -> None:
    """Set what every Prefect process of ours needs."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "pedigree")
    os.environ["PREFECT_RUNNER_SERVER_HOST"] = "127.0.0.1"  # of the page of health, which people may switch on
    os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", "1")
    # In memory, leases would be forgotten with a server that is started again, and their slots held for ever.
    os.environ.setdefault(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "prefect.server.concurrency.lease_storage.filesystem"
    )
