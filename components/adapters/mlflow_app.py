"""python -m components.adapters.mlflow_app FD: MLflow's pages of the current folder, on the socket FD.

They are those of `mlflow ui --no-serve-artifacts`, which listens at a port by itself, and without a login.

MLflow 3.17 shows agent pages first, and neither a setting nor an experiment's tag changes that: the browser stores
which pages its user chose last (WorkflowTypeContext in MLflow's JavaScript). This app adds a script that stores the
choice of training pages in a browser that has no choice yet, and that MLflow's assistant was opened already: it
otherwise opens by itself on the first visit, and takes a third of the page.

MLflow's `basic-auth` app would require a login, too, but keeps users and permissions in a database of its own, and
needs packages that are not installed with it. It trusts the pages of every port of this machine, as MLflow does.
"""

import base64
import binascii
import os
import secrets
import socket
import sys
from urllib.parse import urlsplit

import uvicorn
from flask import Response, request
from mlflow.server import app as pages
from mlflow.server import constants, handlers
from mlflow.server.fastapi_app import app
from mlflow.tracking._tracking_service import utils
from mlflow.utils.server_cli_utils import resolve_default_artifact_root
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from components.runtime import login

_CHOICES = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
_STORE = "".join(
    f"localStorage.getItem('{key}') ?? localStorage.setItem('{key}', '{value}');" for key, value in _CHOICES.items()
)
_SCRIPT = f"<script>{_STORE}</script>"
_OPEN = ("/health",)
"""Paths that need no login."""


def main(descriptor: int) -> None:
    """Serve until the process is ended, callers with the login in the environment."""
    its_login = os.environ[login.VARIABLE]
    pages.after_request(_with_choice)
    _use_store()
    with socket.socket(fileno=descriptor) as listening:
        uvicorn.Server(uvicorn.Config(_guarded(app, its_login), access_log=False)).run(sockets=[listening])


def _use_store() -> None:
    """Use the store that `mlflow ui` would use (mlflow.cli.server and mlflow.server._run_server)."""
    store = os.environ.get("MLFLOW_BACKEND_STORE_URI") or utils._get_default_tracking_uri()
    registry = os.environ.get("MLFLOW_REGISTRY_STORE_URI") or store
    artifacts = resolve_default_artifact_root(False, os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", ""), store)
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = store
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = registry
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = artifacts
    handlers.initialize_backend_stores(store, registry, artifacts)


def _guarded(app: ASGIApp, its_login: str) -> ASGIApp:
    """Require a login, and reject what pages of another origin send."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        rejected = _rejection(scope, its_login) if scope["type"] in ("http", "websocket") else None
        await (rejected or app)(scope, receive, send)

    return guarded


def _rejection(scope: Scope, its_login: str) -> PlainTextResponse | None:
    headers = Headers(scope=scope)
    # Browsers name the origin of the page in all that another page sends. MLflow itself checks the host. A proxy
    # may send another host than its own, which these origins name (pipelines.ui.environment).
    proxies = os.environ.get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "").split(",")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host") and origin not in proxies:
        return PlainTextResponse("This page may not use MLflow's server: it is of another origin.", 403)
    if scope["path"] in _OPEN or secrets.compare_digest(_given(headers), its_login.encode()):
        return None
    wanted = {"WWW-Authenticate": f'Basic realm="user:password is in {login.where()}", charset="UTF-8"'}
    return PlainTextResponse(f"A login is required: user:password is in {login.where()}.", 401, wanted)


def _given(headers: Headers) -> bytes:
    """Return the user:password of a request (RFC 7617), or nothing."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    try:
        return base64.b64decode(value, validate=True) if scheme.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        return b""


def _with_choice(response: Response) -> Response:
    # Only the page itself: artifacts of type HTML stay as they were stored.
    if request.path == "/" and response.status_code == 200 and response.mimetype == "text/html":
        response.direct_passthrough = False
        response.set_data(response.get_data().replace(b"<head>", b"<head>" + _SCRIPT.encode(), 1))
    return response


if __name__ == "__main__":
    main(int(sys.argv[1]))
