"""The work of one training worker. Imports nothing that only the driver needs, such as MLflow."""

from pathlib import Path

from components.contracts import Prepared, Sources, Worker
from components.errors import PedigreeError
from components.models import Model
from components.training import device, loop
from components.trust.imports import Imported


def fit(code: Imported, model: Model, prepared: Prepared, folder: Path, sources: Sources, worker: Worker) -> None:
    """Train on a worker, which may start long after the driver, or on another host.

    Args:
        code: The code with which the training started.
        model: The model to train.
        prepared: The data.
        folder: The training's folder.
        sources: Copies of the sources that parameters name, below that folder.
        worker: This worker.

    Raises:
        PedigreeError: the code has changed or differs on this host, a GPU's memory is too small, or the loop fails.
    """
    if code.edited:
        raise PedigreeError(
            f"the code of the training of {model.name} was edited since it started, or differs on this host: "
            "run the same command again to train with the present code"
        )
    train = model.params.train
    remedy = f"lower train.batch_size (now {train.batch_size}) or raise train.accumulate (now {train.accumulate})"
    with device.explaining_memory(remedy):
        loop.fit(model.task, model.params, prepared, folder, worker, sources)
