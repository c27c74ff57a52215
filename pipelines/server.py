"""Selects the Prefect server that flows use. Prefect reads its settings on import, so import this first."""

import atexit
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from components.errors import PedigreeError
from components.runtime import addresses, files, login
from pipelines import prefect_profile

T = TypeVar("T")


def answers(api: str, its_login: str | None = None) -> bool:
    """Return whether a Prefect server answers at this API address, with this login if it is one of our own.

    Asks for what is needed later, with Prefect's own client and so with its headers, login and TLS settings. A
    server's /health needs no login, and a gateway may not pass it on.

    Raises:
        PedigreeError: the server requires another login.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    try:
        with (
            at(api, its_login),
            temporary_settings(updates={PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": 5}, sync_client=True) as client,
        ):
            client.read_flows(limit=1)
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            return False
        if api == f"{addresses.prefect(Path.cwd())}/api":
            raise PedigreeError(
                f"Prefect at {api} has another login than {login.where()}, which was replaced after `pedigree up` "
                "had started: stop it with Ctrl-C and start it again"
            ) from None
        raise PedigreeError(
            f"Prefect at {api} requires a login ({error.response.status_code} {error.response.reason_phrase}): set "
            "PREFECT_API_AUTH_STRING or PREFECT_API_KEY, or the header that a gateway asks for in "
            "PREFECT_CLIENT_CUSTOM_HEADERS"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return False
    return True


@contextmanager
def connected(check: Callable[[], T], load: Callable[[], object]) -> Iterator[T]:
    """Use the server at PREFECT_API_URL, or this checkout's `pedigree up`, or a temporary one of our own.

    Args:
        check: Its result is yielded. If it raises, the temporary server creates no tables.
        load: Called while the temporary server starts.

    Raises:
        PedigreeError: PREFECT_API_URL names a server that does not answer, or the temporary one does not start.
        OSError: Prefect's folder is not writable.
    """
    settings()
    check_proxies()
    api, up = os.environ.get("PREFECT_API_URL"), addresses.prefect(Path.cwd())
    if not up:
        prefect_profile.clear()
    # Never a new one, with which `up` has not started: Prefect's profile has that of a removed file.
    its_login = login.read(Path.cwd()) if up and (not api or api == f"{up}/api") else None
    if api and not answers(api, its_login):
        raise PedigreeError(
            f"Prefect does not answer at {api}: start it with `pedigree up`, check Prefect's TLS and proxy "
            "settings, or unset PREFECT_API_URL to run without a server"
        )
    if not api and up and answers(f"{up}/api", its_login):
        api = f"{up}/api"
    if api:
        checked = check()
        _check_home()
        with at(api, its_login):
            yield checked
        return
    own = _Own.begin()
    checked = check()
    _check_home()
    check_database()
    own.start()
    load()
    own.wait()
    token = _OWN.set(True)
    try:
        with at(own.api, own.login):
            yield checked
    finally:
        _OWN.reset(token)


_OWN: ContextVar[bool] = ContextVar("own", default=False)
"""Whether the flow uses this process's temporary server."""


def is_temporary() -> bool:
    """Return whether this process uses a temporary server of its own, which serves nobody else."""
    return _OWN.get()


START_SECONDS = 180
"""The first start in a folder also creates tables."""


@dataclass(frozen=True)
class _Own:
    """A temporary server that ends with this process, however that ends, because its standard input closes."""

    program: subprocess.Popen[bytes]
    api: str
    login: str = field(default_factory=login.new, repr=False)

    @classmethod
    def begin(cls) -> "_Own":
        """Spawn a server; it ends at exit, after everything that still reports to it."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            program = subprocess.Popen(
                [sys.executable, "-m", "pipelines.prefect_server", "run", f"{listening.fileno()}"],
                stdin=subprocess.PIPE,
                pass_fds=[listening.fileno()],
                start_new_session=True,  # Ctrl-C must not reach it: we still report to it while we end
            )
            own = cls(program, f"http://127.0.0.1:{listening.getsockname()[1]}/api")
        atexit.register(own.end)
        return own

    def start(self) -> None:
        """Make it start serving; until then it only imports. Its login is in no argument and no environment."""
        assert self.program.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which `wait` reports
            self.program.stdin.write(f"{self.login}\n".encode())
            self.program.stdin.flush()

    def wait(self) -> None:
        """Wait until it answers. Its socket already listens, and closes if the server ends."""
        try:
            urllib.request.urlopen(f"{self.api}/health", timeout=START_SECONDS).close()  # noqa: S310 - our own
        except OSError as error:
            raise PedigreeError(f"Prefect's server does not start ({error}): see its output above") from error

    def end(self) -> None:
        """End the server."""
        assert self.program.stdin is not None
        with suppress(BrokenPipeError):
            self.program.stdin.close()
        self.program.terminate()  # it does not read its input while it still imports
        try:
            self.program.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.program.kill()
            self.program.wait()


ROOM = 1 << 20
"""Free bytes that Prefect's database needs on its disk."""


def _check_home() -> None:
    """Check that Prefect's folder is writable; the server would report it only inside a traceback.

    Raises:
        OSError: it is not writable, or its disk is full.
    """
    from prefect.settings import PREFECT_HOME

    home = PREFECT_HOME.value()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with files.new_beside(home / "room") as room:
        room.write_bytes(bytes(ROOM))


def check_database() -> None:
    """Check Prefect's own database; a server that cannot use it ends with a hundred lines of traceback.

    Raises:
        PedigreeError: it was made by a newer Prefect, or is damaged.
    """
    import prefect
    from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL

    # Another database than SQLite is a team's, whose server reports its problems there.
    kind, _, path = str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value()).partition(":///")
    file = Path(path.partition("?")[0])
    if not kind.startswith("sqlite") or not file.is_file():
        return
    remedy = f"move {file.parent} away, which holds flow runs and settings but no versions"
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = [str(row[0]) for row in database.execute("SELECT version_num FROM alembic_version")]
    except sqlite3.OperationalError:  # there are no tables yet, or another process holds them
        return
    except sqlite3.DatabaseError as error:
        raise PedigreeError(f"Prefect's database {file} is damaged ({error}): {remedy}") from None
    folder = Path(prefect.__file__).parent / "server/database/_migrations/versions/sqlite"
    known = "".join(each.read_text(encoding="utf-8") for each in folder.glob("*.py"))
    if any(revision not in known for revision in found):
        raise PedigreeError(
            f"Prefect's database {file} was made by a newer Prefect than {prefect.__version__}: install from the "
            f"requirements.lock that it was made with, or {remedy}"
        )


def check_proxies() -> None:
    """Check that Prefect's client can use the proxies of the environment: it sets up all that are named.

    Raises:
        PedigreeError: it cannot.
    """
    import httpx

    try:
        httpx.Client().close()
    except (ImportError, ValueError) as error:
        reason = str(error).partition(". ")[0]
        raise PedigreeError(
            f"Prefect's client cannot use a proxy that the environment names ({reason}): run "
            "`pip install 'httpx[socks]'` for a socks5:// address, or set http_proxy, https_proxy and all_proxy to "
            "http:// addresses, or unset them"
        ) from None


def client(api: str, its_login: str) -> dict[str, str]:
    """Return the environment of a client of one of our own servers, with nothing that another one needs."""
    return {
        "PREFECT_API_URL": api,
        "PREFECT_API_AUTH_STRING": its_login,
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "PREFECT_CLIENT_CUSTOM_HEADERS": "{}",
    }


@contextmanager
def at(api: str, its_login: str | None = None) -> Iterator[None]:
    """Use the server at this address: one of our own with its login, another one as Prefect's settings say."""
    from prefect import settings as of_prefect

    if its_login:
        updates: dict[str, Any] = dict(client(api, its_login))
    else:
        updates = {"PREFECT_API_URL": api}
        given = of_prefect.get_current_settings().api.auth_string
        # Prefect's profile has the login of our own server while `pedigree up` runs.
        if given and given.get_secret_value() == login.read(Path.cwd()):
            updates["PREFECT_API_AUTH_STRING"] = None
    with of_prefect.temporary_settings({getattr(of_prefect, name): value for name, value in updates.items()}):
        yield


def settings() -> None:
    """Set the environment that every Prefect process of ours needs."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "pedigree")
    os.environ["PREFECT_RUNNER_SERVER_HOST"] = "127.0.0.1"  # for the health endpoint, which users can enable
    os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", "1")
    # A restarted server would lose leases kept in memory, and hold their slots forever.
    os.environ.setdefault(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "prefect.server.concurrency.lease_storage.filesystem"
    )
