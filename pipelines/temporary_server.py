"""`python -m pipelines.temporary_server FD`: Prefect's server for one process, at a socket of that one.

It imports at once, which takes the longest, and starts, which makes tables, when a line comes on its standard
input. When that ends, so does the server: whoever started it is gone, or needs none.
"""

import os
import signal
import socket
import sys
import threading
import time

import uvicorn
from prefect.server.api.server import create_app

END_SECONDS = 20
"""In which it ends by itself."""


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
    while os.read(sys.stdin.fileno(), 1):  # a file of Python's would hold a lock that Python's end waits for
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
