"""python -m pipelines.serve: take `prefect deployment run '<task>/local'` and run the flows, a few at a time."""

from pathlib import Path

from components import tasks
from pipelines import server

LIMIT = 4
"""Flows side by side; of these, one at a time trains. The others wait as scheduled."""


def main() -> None:
    """Serve one deployment for each task until the process is ended."""
    server.settings()
    from prefect import serve
    from prefect.deployments.runner import RunnerDeployment

    from pipelines import flow

    root = Path.cwd()
    deployments = []
    for name in tasks.names(root):
        deployment = flow.build(name, root).to_deployment("local", description=f"{name}, on this machine")
        assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
        deployments.append(deployment)
    serve(*deployments, limit=LIMIT)


if __name__ == "__main__":
    main()
