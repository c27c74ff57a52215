"""Which Prefect server the flows use. Prefect reads its settings when it is imported, so this comes first."""

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from components.errors import PedigreeError, without_login

ADDRESS = "http://127.0.0.1:4200"
"""Where `pedigree up` serves Prefect; the same as in pyproject.toml, for `prefect deployment run`."""


def answers(api: str) -> bool:
    """Tell whether a Prefect server answers at this API address."""
    try:
        urllib.request.urlopen(f"{without_login(api).rstrip('/')}/health", timeout=3).close()  # noqa: S310 - the user's own address
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def connected() -> Iterator[None]:
    """Use the server at PREFECT_API_URL, else the one that `pedigree up` started, else one of this process's own.

    Raises:
        PedigreeError: PREFECT_API_URL names a server that does not answer.
    """
    settings()
    api = os.environ.get("PREFECT_API_URL")
    if api and not answers(api):
        raise PedigreeError(
            f"Prefect does not answer at {api}: start it with `pedigree up`, "
            "or unset PREFECT_API_URL to run without a server"
        )
    from prefect.settings import PREFECT_API_URL, temporary_settings

    # pyproject.toml names the address of `pedigree up`; without an address Prefect starts a server of its own.
    unset = set() if api or answers(f"{ADDRESS}/api") else {PREFECT_API_URL}
    with temporary_settings(restore_defaults=unset):
        yield


def settings() -> None:
    """Set what every Prefect process of ours needs."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")  # its first start makes tables
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "pedigree")
    os.environ["PREFECT_RUNNER_SERVER_HOST"] = "127.0.0.1"  # of the page of health, which people may switch on
    os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", "1")
