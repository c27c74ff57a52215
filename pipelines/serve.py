"""python -m pipelines.serve: take `prefect deployment run '<task>/local'` and run the flows, one at a time."""

from pathlib import Path

from components import tasks
from pipelines import server


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
    serve(*deployments, limit=1)


if __name__ == "__main__":
    main()
