"""`pedigree ui`: the MLflow UI of this checkout's runs and versions on 127.0.0.1, until Ctrl-C."""

import os
from functools import partial
from pathlib import Path

from components.adapters import mlflow_store
from components.runtime import addresses, login, presence, processes
from pipelines import output
from pipelines.children import Children, expect_free, host_and_port


def ui(root: Path, port: int) -> None:
    """Start the MLflow UI, print its address, and wait.

    Raises:
        PedigreeError: the port is in use, or the UI does not start or keeps exiting.
    """
    address = addresses.url(port)
    presence.end_orphans(root)  # such as the server of a `pedigree ui` that was killed
    expect_free(address, "the MLflow UI needs", "--port")
    mlflow_store.connect(root)
    note = partial(presence.note, presence.notes(root, "ui"))
    login.of(root)  # a file that others can read is reported here, and not in the server's traceback
    with Children(processes.environment(**environment()), note) as children:
        start(children, address)
        children.wait()
        with addresses.published(root, address):
            output.echo(f"MLflow       {address}")
            output.echo(f"login        user:password is in {login.FILE}")
            output.echo("Press Ctrl-C to stop.")
            children.watch()


def start(children: Children, address: str) -> None:
    """Start the MLflow UI as one of these children."""
    # One worker, which answers in threads: MLflow's default of four takes 6 s and 750 MB more.
    pages = ["-m", "mlflow", "ui", "--app-name", "pedigree", "--workers", "1", *host_and_port(address)]
    # The pages read artifacts by themselves. MLflow's proxy for clients would store what they send in the project.
    children.start("the MLflow UI", [*pages, "--no-serve-artifacts"], f"{address}/health")


def environment() -> dict[str, str]:
    """Return MLflow's checks of hosts and origins, which are off or wider in some users' environments.

    The names in MLFLOW_SERVER_ALLOWED_HOSTS, such as a proxy's, are accepted, too, and pages from there.
    """
    given = os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", "").split(",")
    named = [name.strip() for name in given if name.strip()]
    # With any port, as patterns of fnmatch. MLflow's own list has all private addresses, too.
    local = [*addresses.HOSTS, *(f"{host.replace('[', '[[]')}:*" for host in addresses.HOSTS)]
    origins = [f"{scheme}://{name}" for name in named for scheme in ("https", "http")]
    return {
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*local, *named]),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "SAMEORIGIN",
    }
