"""MLflow's store: where it is, and what it says when something is wrong; mlflow_runs and mlflow_versions use it."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from components import locks
from components.adapters import mlflow_moved
from components.errors import PedigreeError, first_line, without_login

UI = "http://127.0.0.1:5000"
"""Where `pedigree up` and `make ui` serve MLflow's pages."""
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
"""MLflow's codes for what is not there; an alias that is not set is an invalid value."""
SQLITE = "sqlite:///"


def connect(root: Path) -> None:
    """Use the store at MLFLOW_TRACKING_URI, or else the project's own mlflow.db, made here if it is not there.

    Raises:
        PedigreeError: the server does not answer.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    uri = _login_aside(given) if given else store_beside(root)
    mlflow.set_tracking_uri(uri)
    if not given:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # which MLflow has just set: that is for the user to do
    if uri.startswith("http"):
        _expect_server(uri)
    else:
        # Of several processes that make the tables of a new database at once, some die.
        with locks.alone(root / "build" / ".mlflow.lock", "another start on MLflow's database"):
            if not given:
                mlflow_moved.follow(root / "mlflow.db")
            MlflowClient().search_experiments(max_results=1)


_MLFLOW_PATIENCE, _PATIENCE = "PRAGMA busy_timeout = 20000", "PRAGMA busy_timeout = 120000"
"""Milliseconds that MLflow waits for a database that another process has locked, and that we let it wait."""


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _patient(*arguments: Any) -> tuple[str, Any]:
    # MLflow has no setting for it: mlflow/store/db/utils.py, make_managed_session.
    _, _, statement, parameters, *_ = arguments
    return statement.replace(_MLFLOW_PATIENCE, _PATIENCE), parameters


@contextmanager
def answering() -> Iterator[None]:
    """Say in a sentence that the store does not do as it is told, in place of what MLflow raises.

    Raises:
        PedigreeError: it is away, full, locked, read-only, or refuses.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise PedigreeError(
            f"MLflow at {mlflow.get_tracking_uri()} does not answer as it should ({first_line(error)}): look at "
            "it, and run the same command again, which goes on where this one ended"
        ) from error


def store_beside(root: Path) -> str:
    """Return the address of the store in a folder; SQLAlchemy takes % and ? in it for its own."""
    return f"{SQLITE}{quote(str(root / 'mlflow.db'))}"


def _login_aside(uri: str) -> str:
    """Return an address without its password, which goes where MLflow reads it, too: addresses are printed."""
    login = urlsplit(uri)
    if not uri.startswith("http") or login.username is None:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(login.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(login.password or "")
    return without_login(uri)


def _expect_server(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5).close()  # noqa: S310 - http, checked above
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403):
            return  # it is there; whom it lets in it says itself
        raise PedigreeError(
            f"MLflow does not answer at {uri} ({error}): start it, "
            "or unset MLFLOW_TRACKING_URI to use this project's own mlflow.db"
        ) from None


def tracking_uri() -> str:
    """Return the address of the store in use, for a process that is to use the same."""
    return str(mlflow.get_tracking_uri())


def base() -> str:
    """Return the address of MLflow's pages."""
    uri = mlflow.get_tracking_uri()
    return uri.rstrip("/") if uri.startswith("http") else UI


def expect_absent(error: MlflowException) -> None:
    """Let pass what says that something is not there, and nothing else: a store out of reach is no empty store."""
    if error.error_code not in _ABSENT:
        raise PedigreeError(
            f"MLflow at {mlflow.get_tracking_uri()} does not answer as it should ({first_line(error)}): "
            "look at it, and run the same command again"
        ) from None


def spaced(markdown: str) -> str:
    """Keep the columns of tables apart: MLflow's pages let them touch, and spaces at a cell's end are dropped."""
    return markdown.replace(" | ", "\N{NO-BREAK SPACE}\N{NO-BREAK SPACE} | ")
