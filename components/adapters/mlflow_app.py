"""MLflow's server for `mlflow ui --app-name pedigree`: it opens on training pages and requires a login.

MLflow 3.17 shows agent pages first, and neither a setting nor an experiment's tag changes that: the browser stores
which pages its user chose last (WorkflowTypeContext in MLflow's JavaScript). This app adds a script that stores the
choice of training pages in a browser that has no choice yet.

MLflow's `basic-auth` app would require a login, too, but keeps users and permissions in a database of its own, and
needs packages that are not installed with it. It trusts the pages of every port of this machine, as MLflow does.
"""

import base64
import binascii
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from flask import Response, request
from mlflow.server import app as pages
from mlflow.server.fastapi_app import app
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from components.runtime import login

_KEY, _TRAINING = "mlflow.workflowType_v1", '"machine_learning"'
_SCRIPT = f"<script>localStorage.getItem('{_KEY}') ?? localStorage.setItem('{_KEY}', '{_TRAINING}')</script>"
_OPEN = ("/health",)
"""Paths that need no login."""


def create_app() -> ASGIApp:
    """Return MLflow's server with the script in its page, and behind the login of the current folder's checkout."""
    pages.after_request(_with_choice)
    return _guarded(app, login.of(Path.cwd()))


def _guarded(app: ASGIApp, its_login: str) -> ASGIApp:
    """Require a login, and reject what pages of another origin send."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        rejected = _rejection(scope, its_login) if scope["type"] in ("http", "websocket") else None
        await (rejected or app)(scope, receive, send)

    return guarded


def _rejection(scope: Scope, its_login: str) -> PlainTextResponse | None:
    headers = Headers(scope=scope)
    # Browsers name the origin of the page in all that another page sends. MLflow itself checks the host.
    if (origin := headers.get("origin")) is not None and urlsplit(origin).netloc != headers.get("host"):
        return PlainTextResponse("This page may not use MLflow's server: it is of another origin.", 403)
    if scope["path"] in _OPEN or secrets.compare_digest(_given(headers), its_login.encode()):
        return None
    wanted = {"WWW-Authenticate": f'Basic realm="user:password is in {login.FILE}", charset="UTF-8"'}
    return PlainTextResponse(f"A login is required: user:password is in {login.FILE}.", 401, wanted)


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
