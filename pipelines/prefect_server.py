"""Prefect's server for callers with its login, on a socket that its parent passes.

    python -m pipelines.prefect_server up FD    serve the pages, too, until the process is ended: `pedigree up`
    python -m pipelines.prefect_server run FD   serve one process: `pedigree run`

The first has its login in the environment. The second imports Prefect at once, which takes longest. It starts
serving, which creates tables, when it reads its login as a line from standard input, and ends when standard input
closes: its parent is gone or no longer needs it.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import Settings, temporary_settings
from starlette.middleware.trustedhost import TrustedHostMiddleware

from components.runtime import addresses, login

END_SECONDS = 20
"""Seconds in which the server may shut down by itself."""


def main() -> None:
    """Serve as the arguments say."""
    serve = {"up": _serve, "run": _serve_one}[sys.argv[1]]
    with socket.socket(fileno=int(sys.argv[2])) as listening:
        serve(listening)


def _serve(listening: socket.socket) -> None:
    # As `prefect server start` does (prefect.cli._server_utils).
    with _guarded(listening, os.environ[login.VARIABLE]) as settings:
        config = uvicorn.Config(
            _checked(ephemeral=False),
            log_level=settings.server.logging_level.lower(),
            timeout_keep_alive=settings.server.api.keepalive_timeout,
            ws_ping_interval=settings.server.api.websocket_ping_interval,
            ws_ping_timeout=settings.server.api.websocket_ping_timeout,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _serve_one(listening: socket.socket) -> None:
    its_login = _read_line()
    if not its_login:
        return
    threading.Thread(target=_end_with_input, daemon=True).start()
    with _guarded(listening, its_login):
        # As Prefect starts its own (prefect.server.api.server.SubprocessASGIServer).
        config = uvicorn.Config(_checked(ephemeral=True), log_level="error", lifespan="on")
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _guarded(listening: socket.socket, its_login: str) -> Iterator[Settings]:
    """Require the login, and tokens against forged requests, whatever the user's environment says.

    Its pages find the API beside themselves, also through a tunnel or proxy, so no other origin needs it.
    """
    updates = {
        "server.api.auth_string": its_login,
        "server.api.csrf_protection_enabled": True,
        "server.api.cors_allowed_origins": addresses.url(listening.getsockname()[1]),
        "server.ui.api_url": "/api",
    }
    with temporary_settings(updates) as settings:
        yield settings


def _checked(ephemeral: bool) -> TrustedHostMiddleware:
    """Return Prefect's server behind a check of the host, for which Prefect has no setting."""
    app = create_app(ephemeral=ephemeral, final=True)
    return TrustedHostMiddleware(app, addresses.HOSTS, www_redirect=False)


def _read_line() -> str:
    """Return a line of standard input, or what there is of it; sys.stdin would read on, and hold a lock."""
    line = b""
    while (byte := os.read(sys.stdin.fileno(), 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):  # sys.stdin would hold a lock that interpreter shutdown waits for
        pass
    logging.disable()  # SQLAlchemy would report what is cancelled now, as its services are, with a traceback
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
