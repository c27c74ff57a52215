"""MLflow's server for `mlflow ui --app-name pedigree`: it opens on training pages.

MLflow 3.17 shows agent pages first, and neither a setting nor an experiment's tag changes that: the browser stores
which pages its user chose last (WorkflowTypeContext in MLflow's JavaScript). This app adds a script that stores the
choice of training pages in a browser that has no choice yet.
"""

from typing import cast

from fastapi import FastAPI
from flask import Response, request
from mlflow.server import app as pages
from mlflow.server.fastapi_app import app

_CHOICE, _TRAINING = "mlflow.workflowType_v1", '"machine_learning"'
_SCRIPT = f"<script>localStorage.getItem('{_CHOICE}') ?? localStorage.setItem('{_CHOICE}', '{_TRAINING}')</script>"


def create_app() -> FastAPI:
    """Return MLflow's server, with the script in its page."""
    pages.after_request(_with_choice)
    return cast(FastAPI, app)


def _with_choice(response: Response) -> Response:
    # Only the page itself: artifacts of type HTML stay as they were stored.
    if request.path == "/" and response.status_code == 200 and response.mimetype == "text/html":
        response.direct_passthrough = False
        response.set_data(response.get_data().replace(b"<head>", b"<head>" + _SCRIPT.encode(), 1))
    return response
