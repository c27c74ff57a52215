"""What a worker of the train stage does. It loads this, and none of what only the driver needs, such as MLflow."""

from pathlib import Path
from typing import Any

from components.contracts import Prepared, Task, Workers
from components.errors import PedigreeError
from components.params import TaskParams
from components.training import loop
from components.trust import lineage

_COMPONENTS = Path(__file__).resolve().parents[1]


def source_now() -> str:
    """Return the hash of the source of components/ as it is now."""
    return lineage.of_source(_COMPONENTS)


def fit(code: str, task: Task[Any], params: TaskParams, prepared: Prepared, folder: Path, workers: Workers) -> None:
    """Train on a worker, which may be started long after the driver, or on another host.

    Args:
        code: The hash of the source that the training began with.
        task: As all others, as the one loop takes it.
        params: Its parameters.
        prepared: The data.
        folder: Of the training.
        workers: This one among all.

    Raises:
        PedigreeError: the source is another here, or what the loop raises.
    """
    if source_now() != code:
        raise PedigreeError(
            f"components/ was edited, or is another on this host, since the training of {task.name} began: run the "
            "same command again, which trains with what is there now"
        )
    loop.fit(task, params, prepared, folder, workers)
