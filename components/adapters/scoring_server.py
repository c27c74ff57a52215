"""python -P scoring_server.py FOLDER FD: MLflow's scoring server for a folder's registered model, on the socket FD.

`mlflow models serve` would serve the same app, but to callers of any host name, and with requests of any size.

As in answering.py, nothing here may import `components`, whose copy in the version comes first.
"""

import asyncio
import socket
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import uvicorn
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server
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
SECONDS = 60
"""For a request to arrive. A request's head may take any time: uvicorn has no setting for that."""


def main(folder: str, descriptor: int) -> None:
    """Serve until the process is ended."""
    model = scoring_server.load_model_with_mlflow_config(folder)
    served: Any = SimpleNamespace(metadata=model.metadata, predict=partial(_answers, model))
    app = scoring_server.init(served)
    app.add_exception_handler(RecursionError, _too_deep)
    checked = TrustedHostMiddleware(_bounded(app), HOSTS, www_redirect=False)
    with socket.socket(fileno=descriptor) as listening:
        uvicorn.Server(uvicorn.Config(checked)).run(sockets=[listening])


def _answers(model: PyFuncModel, data: Any, params: dict[str, Any] | None = None) -> Any:
    """Return no answers for no rows, whose columns MLflow would miss.

    Raises:
        MlflowException: rows without columns, which MLflow would drop if a model has several; or as the model does.
    """
    columns = list(data.values()) if isinstance(data, dict) else [data]
    if columns and all(map(_empty, columns)):
        return []
    for number, row in enumerate(data if isinstance(data, list) else []):
        if not isinstance(row, dict):
            schema = model.metadata.get_input_schema()  # none of a model without inputs
            wanted = f"an object with one or more of {', '.join(schema.input_names())}" if schema else "{}"
            raise MlflowException.invalid_parameter_value(f"row {number} names no column: send {wanted}")
    return model.predict(data, params=params)


def _empty(values: Any) -> bool:
    """Return whether a table has no rows, or an array or a list no values; a text is one value."""
    return values.shape[:1] == (0,) if isinstance(values, pd.DataFrame | np.ndarray) else values == []


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
        HTTPException: it is too large, or too slow, or not JSON: MLflow's app returns 500 if there is no type, and
            takes CSV and Parquet, in which it can give no value of any type.
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
    if body and kind.lower() != "application/json":
        raise HTTPException(
            415,
            f"the request has {kind[:100]}: send application/json, with a file in base64 in a row, as the command "
            "does that `pedigree serve` prints",
        )
    return bytes(body)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
