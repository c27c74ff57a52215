"""The addresses of this checkout's servers, all on 127.0.0.1, and the check of those that the environment names.

Ports are options and environment variables, so that two people can work on one machine. While `pedigree up` or
`pedigree ui` runs, a file in build/ contains its addresses for other commands of the checkout and for links.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.display import brief
from components.errors import PedigreeError

if TYPE_CHECKING:
    from components.runtime.processes import Process

FILE = Path("build", "addresses.json")


@dataclass(frozen=True)
class Port:
    """The port of one server."""

    variable: str
    """Environment variable that sets the port if no option does."""
    default: int


HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""The names by which a browser on this machine, or at the other end of a tunnel, knows the servers.

If the owner of another name points it at 127.0.0.1 once a page is loaded (DNS rebinding), a browser takes that page
for one of the server; only the name gives it away.
"""
PREFECT = Port("PEDIGREE_PREFECT_PORT", 4200)
MLFLOW = Port("PEDIGREE_MLFLOW_PORT", 5000)
SERVE = Port("PEDIGREE_SERVE_PORT", 5001)


def url(port: int) -> str:
    """Return the address of a port of this machine."""
    return f"http://127.0.0.1:{port}"


@contextmanager
def published(root: Path, mlflow: str, prefect: str | None = None) -> Iterator[None]:
    """Publish these addresses to other commands of the checkout while the block runs.

    Args:
        root: The project's folder.
        mlflow: Address of the MLflow UI.
        prefect: Address of the Prefect server. Without it, the addresses of a running `pedigree up` stay.
    """
    from components.runtime import files, presence

    if prefect is None and _published(root).get("prefect"):
        yield
        return
    process, earlier = presence.announce(root).model_dump(), _published(root)
    files.write_json(root / FILE, {"process": process, "mlflow": mlflow, "prefect": prefect})
    try:
        yield
    finally:
        if _published(root).get("process") == process:
            files.write_json(root / FILE, earlier)  # of a `pedigree ui` that may go on
            if not _published(root):
                files.remove(root / FILE)


def prefect(root: Path) -> str | None:
    """Return the address of the Prefect server of this checkout's `pedigree up`, if that runs."""
    found = _published(root).get("prefect")
    return None if found is None else str(found)


def mlflow(root: Path) -> str:
    """Return the address at which this checkout serves, or would serve, the MLflow UI."""
    return str(_published(root).get("mlflow") or url(_chosen(MLFLOW)))


def serves_mlflow(root: Path) -> bool:
    """Return whether a command of this checkout serves the MLflow UI now."""
    return bool(_published(root))


def publisher(root: Path, mlflow: str) -> "Process | None":
    """Return the process of this checkout that has published this address of the MLflow UI, if it lives."""
    from components.runtime import processes

    found = _published(root)
    return processes.Process.model_validate(found["process"]) if found.get("mlflow") == mlflow else None


def _published(root: Path) -> dict[str, Any]:
    """Return the published addresses, or nothing if their process has ended."""
    from components.runtime import presence, processes

    try:
        found: dict[str, Any] = json.loads((root / FILE).read_bytes())
        return found if presence.lives(root, processes.Process.model_validate(found["process"])) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


NAMED = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL", "RAY_ADDRESS")
"""Environment variables that contain addresses, besides those of proxies."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")
"""Environment variables of proxies, in lower case. Other programs have more, such as SSH_PROXY, of other forms."""
_PROFILES = ("databricks", "databricks-uc", "uc")
"""Schemes of MLflow's addresses that name a profile, and neither a host nor a login."""


def expect_valid_environment() -> None:
    """Check the addresses in this process's environment.

    Raises:
        PedigreeError: one of them cannot be parsed; it does not show the address.
    """
    for name, value in os.environ.items():
        proxy = name.lower() in PROXIES
        if value and (proxy or name in NAMED):
            expect_valid(value, f"the environment variable {name}", is_server=True, is_proxy=proxy)


def expect_valid(address: str, what: str, is_server: bool = False, is_proxy: bool = False) -> None:
    """Check that an address can be parsed, so that a login in it is found and removed before it is shown.

    Libraries show parts of an address that they cannot parse, or all of it.

    Args:
        address: The address.
        what: What has the address, for the error.
        is_server: Whether it is a server's, which has no query: the client would append its own.
        is_proxy: Whether it is a proxy's, which may have a login without a scheme.

    Raises:
        PedigreeError: it cannot; the address is not shown.
    """
    if address.partition(":")[0] not in _PROFILES and not _valid(address, is_server, is_proxy):
        raise PedigreeError(
            f"{what} is not a valid address (not shown here, as it may hold a password): write scheme://host:port, "
            "with a login as user:password@ before the host and without a query; in a login or path, write %40 for "
            "@, and in a login also %2F for / and so on"
        )


def _valid(address: str, is_server: bool, is_proxy: bool) -> bool:
    has_scheme = "://" in address
    try:
        parts = urlsplit(address if has_scheme else f"//{address}")
        _ = parts.port
    except ValueError:  # a port that is not a number, or a bracket that is not closed
        return False
    if not address.isprintable() or " " in parts.netloc:
        return False
    if address.startswith("/") and not parts.netloc:
        return not address.startswith("//")  # a folder
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    if "@" in rest and (":" in parts.netloc or not has_scheme) and parts.scheme != "ssh":
        return False  # after a / in the password, the rest of it passes for a path; SSH's have no password
    if parts.scheme in ("http", "https"):
        return bool(parts.hostname) and not (is_server and (parts.query or parts.fragment))
    return has_scheme or is_proxy or "@" not in parts.netloc


def _chosen(port: Port) -> int:
    value = os.environ.get(port.variable) or str(port.default)
    if not value.isdecimal() or not 1 <= int(value) <= 65535:
        raise PedigreeError(
            f"the environment variable {port.variable} is {brief(value)}: set it to a port, 1 to 65535"
        )
    return int(value)
