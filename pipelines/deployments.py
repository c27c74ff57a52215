"""python -m pipelines.deployments: serve `prefect deployment run '<model>/local'`, a few flows at a time."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

from components import models
from components.runtime import surroundings
from pipelines import server

LIMIT = 4
"""Flows that run at once; one of them trains at a time. The others stay scheduled."""


def main() -> None:
    """Serve one deployment per model until the process is ended, as Prefect's `serve` does."""
    surroundings.settle()
    server.settings()
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner import Runner

    from pipelines import flow

    class Quiet(Runner):
        def handle_sigterm(self, *_: Any, **__: Any) -> None:
            """End without a traceback per running flow: asyncio reports the cancelled connections to them."""
            logging.disable()
            sys.exit(0)

    root, runner = Path.cwd(), Quiet(limit=LIMIT)
    for name in models.names(root):
        deployment = flow.build(name, root).to_deployment("local", description=f"{name}, on this machine")
        assert isinstance(deployment, RunnerDeployment)  # it is a coroutine only inside an event loop
        runner.add_deployment(deployment)
    asyncio.run(runner.start())


if __name__ == "__main__":
    main()
