"""`pedigree up`: Prefect's server, the deployments and MLflow's pages, all on 127.0.0.1, until Ctrl-C."""

from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import typer

from components import tasks
from components.adapters.mlflow_store import UI
from pipelines import server
from pipelines.children import (
    await_answer,
    child_of_ours,
    environment,
    expect_free,
    wait,
)


def up(root: Path) -> None:
    """Start everything, print the addresses, and wait; whatever ends first, the others end with it.

    Raises:
        PedigreeError: a port is in use, or a program did not start or ended by itself.
    """
    from components.adapters import mlflow_store

    for address, needs in ((server.ADDRESS, "Prefect's server needs"), (UI, "MLflow's pages need")):
        remedy = "is another `pedigree up` running? End what listens there and start again"
        expect_free(address, needs, remedy)
    server.settings()
    mlflow_store.connect(root)
    api = f"{server.ADDRESS}/api"
    env = environment(PREFECT_API_URL=api, PREFECT_UI_API_URL=api)
    prefect, mlflow = urlsplit(server.ADDRESS), urlsplit(UI)
    with ExitStack() as stack:
        commands = {
            "Prefect's server": f"-m prefect server start --host {prefect.hostname} --port {prefect.port}".split(),
            "MLflow's pages": [
                "-m",
                "mlflow",
                "ui",
                "--host",
                str(mlflow.hostname),
                "--port",
                str(mlflow.port),
            ],
        }
        children = {what: stack.enter_context(child_of_ours(command, env)) for what, command in commands.items()}
        await_answer(f"{server.ADDRESS}/api/health", "Prefect's server", children)
        await_answer(f"{UI}/health", "MLflow's pages", children)
        children["the deployments"] = stack.enter_context(child_of_ours(["-m", "pipelines.serve"], env))
        typer.echo(f"Prefect      {server.ADDRESS}")
        typer.echo(f"MLflow       {UI}")
        for name in tasks.names(root):
            typer.echo(f"deployment   prefect deployment run '{name}/local' --watch")
        typer.echo("Ctrl-C takes all of it down.")
        wait(children)
