"""`pedigree serve`: MLflow's scoring server for one registered version on 127.0.0.1, until Ctrl-C."""

import socket
import tempfile
from pathlib import Path

from components import models
from components.adapters import example_request, mlflow_store, mlflow_versions
from components.runtime import presence, processes
from pipelines import output
from pipelines.children import Children, listen

SERVER = str(Path(mlflow_versions.__file__).with_name("scoring_server.py"))
"""By its path: as a module it would bring this checkout's `components`."""


def serve(root: Path, address: str, port: int) -> None:
    """Start the server, print its address and an example request, and wait.

    The server runs in a copy of the version's files: it serves the same version when an alias moves, with the
    version's own code instead of this checkout's.

    Raises:
        PedigreeError: the port is in use, there is no such version, or the server did not start or ended.
    """
    url = f"http://127.0.0.1:{port}"
    presence.end_orphans(root)  # such as the server of a `pedigree serve` that was killed
    with listen(url, "the scoring server needs", "--port") as listening:
        _serve(root, address, url, listening)


def _serve(root: Path, address: str, url: str, listening: socket.socket) -> None:
    mlflow_store.connect(root)
    version = mlflow_versions.find(address)
    what = f"the server of {version.name} version {version.version}"
    env = processes.environment(MLFLOW_TRACKING_URI=mlflow_store.tracking_uri())
    notes = presence.notes(root, "serve")
    with tempfile.TemporaryDirectory(prefix="pedigree-") as scratch, Children(env, notes) as children:
        folder = mlflow_versions.fetch(version, Path(scratch))
        children.start(what, ["-P", SERVER, str(folder)], f"{url}/ping", Path(scratch), listening)
        children.wait()
        output.echo(f"{version.name} version {version.version} is served at {url}; to ask it:")
        raw = root / models.DATA / version.tags.get("data.name", version.name)
        for line in example_request.command(folder, url, raw).splitlines():
            output.echo(f"  {line}")
        output.echo("Press Ctrl-C to stop.")
        children.watch()
