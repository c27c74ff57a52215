"""`pedigree teach`: makes a version that knows new classes, without training."""

from pathlib import Path

from components.adapters import mlflow_store


def teach(root: Path, version: str, folder: Path) -> None:
    """Teach a version the classes of a folder, and print its score and the gate's verdict.

    Raises:
        PedigreeError: there is no such version, it cannot be taught, or the folder cannot be read.
    """
    with mlflow_store.answering():
        mlflow_store.connect(root)
        from components.registry import teach as command

        command.teach(version, folder, root)
