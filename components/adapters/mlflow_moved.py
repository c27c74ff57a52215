"""Lets MLflow's own database follow its checkout to another folder: MLflow keeps absolute addresses of artifacts.

MLflow has no command for that (github.com/mlflow/mlflow/issues/3144).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

ARTIFACTS = "mlruns"
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
"""Tables and columns in which MLflow says where files are."""


def follow(database: Path) -> None:
    """Where artifacts now lie in mlruns/ beside the database and were elsewhere before, say so in the database."""
    if not database.is_file():
        return
    here = f"{database.parent}/{ARTIFACTS}/"
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for there in sorted(set(_former(connection, database.parent / ARTIFACTS))):
            for table, column in _ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608 - names from above
                    (here, len(there) + 1, len(there), there),
                )


def _former(connection: sqlite3.Connection, artifacts: Path) -> Iterator[str]:
    """Yield folders that the database takes for mlruns/, of experiments whose files are here."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        return
    for (location,) in connection.execute("SELECT artifact_location FROM experiments"):
        there = Path(location or "")
        if there.parent.name == ARTIFACTS and there.parent != artifacts and (artifacts / there.name).is_dir():
            yield f"{there.parent}/"
