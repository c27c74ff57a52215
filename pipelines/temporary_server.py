"""`python -m pipelines.temporary_server FD`: Prefect's server for one process, at a socket of that one.

It imports at once, which takes the longest, and starts, which makes tables, when a line comes on its standard
input. When that ends, so does the server: whoever started it is gone, or needs none.
"""

import os
import signal
import socket
import sys
import threading

import uvicorn
from prefect.server.api.server import create_app


def main() -> None:
    """Serve until standard input ends."""
    if not sys.stdin.buffer.readline():
        return
    threading.Thread(target=_end_with_input, daemon=True).start()
    # As Prefect starts its own (prefect.server.api.server.SubprocessASGIServer).
    app = create_app(ephemeral=True, final=True)
    config = uvicorn.Config(app, log_level="error", lifespan="on")
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        uvicorn.Server(config).run(sockets=[listening])


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
