"""The work of one evaluation worker."""

from pathlib import Path

from components.contracts import Prepared, Worker
from components.models import Model
from components.training import device, inference


def predict(model: Model, prepared: Prepared, trained: Path, folder: Path, worker: Worker) -> None:
    """Write a network's predictions on the test split, this worker's share of them.

    Args:
        model: The model.
        prepared: The data.
        trained: Folder of the trained network.
        folder: An empty folder, for one file per batch.
        worker: This worker.

    Raises:
        PedigreeError: a GPU's memory is too small for a batch.
    """
    with device.explaining_memory(f"lower evaluate.batch_size (now {model.params.evaluate.batch_size})"):
        inference.predict_to_folder(model.task, model.params, trained, prepared, folder, worker)
