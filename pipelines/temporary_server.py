"""`python -m pipelines.temporary_server FD`: a Prefect server for one process, on the socket that it passes.

It imports Prefect at once, which takes longest. It starts serving, which creates tables, when it reads a line from
standard input, and ends when standard input closes: its parent is gone or no longer needs it.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time

import uvicorn
from prefect.server.api.server import create_app

END_SECONDS = 20
"""Seconds in which the server may shut down by itself."""


def main() -> None:
    """Serve until standard input ends."""
    if not os.read(sys.stdin.fileno(), 1):
        return
    threading.Thread(target=_end_with_input, daemon=True).start()
    # As Prefect starts its own (prefect.server.api.server.SubprocessASGIServer).
    app = create_app(ephemeral=True, final=True)
    config = uvicorn.Config(app, log_level="error", lifespan="on")
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        uvicorn.Server(config).run(sockets=[listening])


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):  # sys.stdin would hold a lock that interpreter shutdown waits for
        pass
    logging.disable()  # SQLAlchemy would report what is cancelled now, as its services are, with a traceback
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
