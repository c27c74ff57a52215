"""MLflow's store: its address, and its errors as messages for users; used by mlflow_runs and mlflow_versions."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store import db_migrations as migrations
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from components.adapters import mlflow_moved
from components.errors import PedigreeError, first_line, without_login
from components.runtime import addresses, locks

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
"""MLflow's codes for something that does not exist; it reports a missing alias as an invalid value."""
SQLITE = "sqlite:///"


def connect(root: Path) -> None:
    """Use the store at MLFLOW_TRACKING_URI, or else the project's own mlflow.db, which is created if necessary.

    Raises:
        PedigreeError: the server does not answer, or the database is damaged, emptied or locked.
    """
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    uri = _with_login_in_environment(configured) if configured else store_beside(root)
    if registry := os.environ.get("MLFLOW_REGISTRY_URI"):
        os.environ["MLFLOW_REGISTRY_URI"] = _with_login_in_environment(registry)
    mlflow.set_tracking_uri(uri)
    if not configured:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # set by MLflow just now; only the user should set it
    if uri.startswith("http"):
        _expect_server(uri, root)
    else:
        # If several processes create the tables of a new database at once, some of them fail.
        with locks.alone(root / "build" / ".mlflow.lock", "the opening of MLflow's database"):
            if not configured:
                mlflow_moved.follow(root / "mlflow.db")
            try:
                MlflowClient().search_experiments(max_results=1)
            except MlflowException as error:
                _expect_known_tables(error)
                raise


def _expect_known_tables(error: MlflowException) -> None:
    """Check that an error is not about the database of a newer MLflow, which MLflow calls out of date.

    Raises:
        PedigreeError: it is.
    """
    found = re.search(r"out-of-date database schema \(found version (\w+)", str(error))
    known = Path(migrations.__path__[0], "versions")
    if found and not any(found[1] in file.read_text(encoding="utf-8") for file in known.glob("*.py")):
        raise PedigreeError(
            f"the database {without_login(mlflow.get_tracking_uri())} was made by a newer MLflow than "
            f"{mlflow.__version__}: install from the requirements.lock that it was made with, or move it away"
        ) from None


_MLFLOW_PATIENCE, _PATIENCE = "PRAGMA busy_timeout = 20000", "PRAGMA busy_timeout = 120000"
"""How long MLflow waits for a locked database, in milliseconds: its own value, and ours."""


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _patient(*arguments: Any) -> tuple[str, Any]:
    # MLflow has no setting for this (mlflow/store/db/utils.py, make_managed_session).
    _, _, statement, parameters, *_ = arguments
    return statement.replace(_MLFLOW_PATIENCE, _PATIENCE), parameters


@contextmanager
def answering() -> Iterator[None]:
    """Replace MLflow's exceptions by an error message for users.

    Raises:
        PedigreeError: the store is unreachable, full, locked or read-only, or rejects the request.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise PedigreeError(
            f"MLflow at {mlflow.get_tracking_uri()} returned an error ({first_line(error)}): check it, "
            "and run the same command again to resume"
        ) from error


def store_beside(root: Path) -> str:
    """Return the address of the store in a folder, quoted, as % and ? have a meaning in SQLAlchemy's addresses."""
    return f"{SQLITE}{quote(str(root / 'mlflow.db'))}"


def _with_login_in_environment(uri: str) -> str:
    """Move an address's login to MLflow's environment variables, as addresses are printed; return the rest."""
    parts = urlsplit(uri)
    if not uri.startswith("http") or parts.username is None:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return without_login(uri)


_PROBE = "/api/2.0/mlflow/experiments/search"
"""Not /health, which a gateway may not pass on, or may answer without a login."""


def _expect_server(uri: str, root: Path) -> None:
    """Ask for what is needed later, with MLflow's own client and so with its TLS settings, login and headers.

    Raises:
        PedigreeError: the server does not answer, requires another login, or is not MLflow.
    """
    other = "or unset MLFLOW_TRACKING_URI to use this project's own mlflow.db"
    try:
        answer = http_request(
            get_default_host_creds(uri),
            _PROBE,
            "POST",
            json={"max_results": 1},
            max_retries=0,
            timeout=5,
            raise_on_status=False,
        )
    except (MlflowException, OSError) as error:
        raise PedigreeError(
            f"MLflow does not answer at {uri} ({first_line(error)}): start the server, check MLflow's TLS and "
            f"proxy settings, {other}"
        ) from None
    if answer.status_code in (401, 403):
        ours = addresses.serves_mlflow(root) and uri.rstrip("/") == addresses.mlflow(root)
        which = " to the user:password in .prefect/login" if ours else ", or MLFLOW_TRACKING_TOKEN"
        raise PedigreeError(
            f"MLflow at {uri} requires a login ({answer.status_code} {answer.reason}): set "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD{which}, {other}"
        )
    if not answer.ok or not _is_json(answer):
        raise PedigreeError(
            f"MLflow does not answer at {uri} ({answer.url} returned {answer.status_code} {answer.reason} and no "
            f"list of experiments): check the address, {other}"
        )


def _is_json(answer: Any) -> bool:
    """Return whether an answer is an object in JSON, and not, for example, the page of a login."""
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False


def tracking_uri() -> str:
    """Return the address of the store in use, for another process."""
    return str(mlflow.get_tracking_uri())


def is_server() -> bool:
    """Return whether the store in use is a server, and not this project's own database."""
    return str(mlflow.get_tracking_uri()).startswith("http")


def base() -> str:
    """Return the address of MLflow's pages."""
    return tracking_uri().rstrip("/") if is_server() else addresses.mlflow(Path.cwd())


def expect_absent(error: MlflowException) -> None:
    """Ignore an error that says that something does not exist; raise any other, such as an unreachable store.

    Raises:
        PedigreeError: the error has another reason.
    """
    if error.error_code not in _ABSENT:
        raise PedigreeError(
            f"MLflow at {mlflow.get_tracking_uri()} returned an error ({first_line(error)}): "
            "check the server, and run the same command again"
        ) from None


LONGEST_NAME = 250
"""Most characters in the name of a metric."""


def metric_name(name: str) -> str:
    """Return a metric's name as MLflow accepts it: other characters, such as the + of C++, become underscores."""
    parts = [part for part in re.sub(r"[^/\w.\- :]", "_", name).split("/") if part]
    return "/".join(part if part.strip(".") else "_" * len(part) for part in parts)[:LONGEST_NAME] or "_"


_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
"""A character escaped by a backslash in Markdown."""


def for_pages(markdown: str) -> str:
    """Return Markdown as MLflow's pages need it.

    They show tables without a gap between columns, which no-break spaces widen; and their converter (showdown in
    MLflow 3.17) does not know all escapes of CommonMark, so each becomes a reference to the character.
    """
    referring = _ESCAPE.sub(lambda found: f"&#{ord(found.group(1))};", markdown)
    return referring.replace(" | ", "\N{NO-BREAK SPACE}\N{NO-BREAK SPACE} | ")
