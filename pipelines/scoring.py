"""`pedigree serve`: MLflow's scoring server for one registered version on 127.0.0.1, until Ctrl-C."""

import tempfile
from functools import partial
from pathlib import Path

import typer

from components import processes
from components.adapters import mlflow_store, mlflow_versions
from pipelines.children import Children, environment, expect_free


def serve(root: Path, address: str, port: int) -> None:
    """Start the server, print its address and a request to paste, and wait.

    The version's files are fetched first, so that an alias that moves later does not matter, and the server runs
    among them, so that the version's own code answers and not this checkout's.

    Raises:
        PedigreeError: the port is in use, there is no such version, or the server did not start or ended.
    """
    url = f"http://127.0.0.1:{port}"
    processes.end_left(root)  # such as a server whose `pedigree serve` was killed
    expect_free(url, "the server needs", "choose another with --port, or end what listens there")
    mlflow_store.connect(root)
    version = mlflow_versions.find(address)
    what = f"the server of {version.name} version {version.version}"
    env = environment(MLFLOW_TRACKING_URI=mlflow_store.tracking_uri())
    note = partial(processes.note, processes.notes(root, "serve"))
    with tempfile.TemporaryDirectory(prefix="pedigree-") as scratch, Children(env, note) as children:
        folder = mlflow_versions.fetch(version, Path(scratch))
        command = ["-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
        children.start(what, [*command, "-h", "127.0.0.1", "-p", str(port)], f"{url}/ping", Path(scratch))
        children.wait()
        typer.echo(f"{version.name} version {version.version} answers at {url}; a request to paste:")
        request = f"-H 'content-type: application/json' -d @{folder / mlflow_versions.REQUEST}"
        typer.echo(f"  curl {url}/invocations {request}")
        typer.echo("Ctrl-C takes it down.")
        children.watch()
