"""python -m pipelines.deployments: serve `prefect deployment run '<model>/local'`, a few flows at a time."""

from pathlib import Path

from components import models
from components.runtime import surroundings
from pipelines import server

LIMIT = 4
"""Flows that run at once; one of them trains at a time. The others stay scheduled."""


def main() -> None:
    """Serve one deployment per model until the process is ended."""
    surroundings.settle()
    server.settings()
    from prefect import serve
    from prefect.deployments.runner import RunnerDeployment

    from pipelines import flow

    root = Path.cwd()
    deployments = []
    for name in models.names(root):
        deployment = flow.build(name, root).to_deployment("local", description=f"{name}, on this machine")
        assert isinstance(deployment, RunnerDeployment)  # it is a coroutine only inside an event loop
        deployments.append(deployment)
    serve(*deployments, limit=LIMIT)


if __name__ == "__main__":
    main()
