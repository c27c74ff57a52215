"""python -P scoring_server.py FOLDER FD: MLflow's scoring server for a folder's registered model, on the socket FD.

`mlflow models serve` would serve the same app, but to callers of any host name, and with requests of any size.

As in answering.py, nothing here may import `components`, whose copy in the version comes first.
"""

import asyncio
import socket
import sys

import uvicorn
from mlflow.pyfunc import scoring_server
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""The names of this machine: a page of another name that points here (DNS rebinding) is rejected."""
LARGEST = 64 << 20
"""Bytes of a request."""
KINDS = ("application/json", "text/csv")
"""Of requests, which MLflow's app takes."""
SECONDS = 60
"""For a request to arrive. A request's head may take any time: uvicorn has no setting for that."""


def main(folder: str, descriptor: int) -> None:
    """Serve until the process is ended."""
    app = scoring_server.init(scoring_server.load_model_with_mlflow_config(folder))
    app.add_exception_handler(RecursionError, _too_deep)
    checked = TrustedHostMiddleware(_bounded(app), HOSTS, www_redirect=False)
    with socket.socket(fileno=descriptor) as listening:
        uvicorn.Server(uvicorn.Config(checked)).run(sockets=[listening])


async def _too_deep(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse("the request has too many nested brackets: send a table of rows", 400)


def _bounded(app: ASGIApp) -> ASGIApp:
    """Read a request's body before the app does, which would wait for a body of any size for any time."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        try:
            messages = iter([{"type": "http.request", "body": await _body(Headers(scope=scope), receive)}])
        except HTTPException as rejected:
            await PlainTextResponse(rejected.detail, rejected.status_code)(scope, receive, send)
            return

        async def again() -> Message:
            return next(messages, None) or await receive()

        await app(scope, again, send)

    return bounded


async def _body(headers: Headers, receive: Receive) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: it is too large, or too slow, or of a type that MLflow's app does not take.
    """
    too_large = HTTPException(413, f"the request is over {LARGEST >> 20} MiB: send fewer rows at a time")
    if int(headers.get("content-length", 0)) > LARGEST:
        raise too_large
    body, more = bytearray(), True
    try:
        async with asyncio.timeout(SECONDS):
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)  # nor is there more after http.disconnect
                if len(body) > LARGEST:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the request did not arrive within {SECONDS} s: send fewer rows") from None
    kind = headers.get("content-type", "no content-type").partition(";")[0].strip()
    if body and kind.lower() not in KINDS:
        raise HTTPException(
            415,
            f"the request has {kind}: send application/json, with a file in base64 in a row, as the command does "
            "that `pedigree serve` prints",
        )
    return bytes(body)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
