"""Updates the absolute artifact paths in MLflow's database after its checkout was moved to another folder.

MLflow has no command for this (github.com/mlflow/mlflow/issues/3144).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from components.errors import PedigreeError

ARTIFACTS = "mlruns"
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
"""Tables and columns in which MLflow stores artifact locations."""


def follow(database: Path) -> None:
    """Update the locations of experiments whose artifacts are now in mlruns/ beside the database.

    The database is checked for damage first, which takes a second per 500 MB or so.

    Raises:
        PedigreeError: the database is damaged or was emptied, or another process locks it for over a minute.
    """
    if not database.is_file():
        return
    if not database.stat().st_size and any((database.parent / ARTIFACTS).glob("*/")):
        raise PedigreeError(
            f"{database} is empty, and {ARTIFACTS} beside it holds files of its earlier runs: restore a backup of "
            f"the database, or remove both to start afresh"
        )
    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            # MLflow itself would use whatever it can still read of a damaged file.
            if (problem := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(" ".join(problem.split()))
            for old, new in list(_moved(connection, database.parent / ARTIFACTS)):
                for table, column in _ADDRESSES:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names from above
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
    except sqlite3.Error as error:
        raise PedigreeError(
            f"{database} cannot be used ({error}): check whether another process uses it, or restore a backup"
        ) from error


def _moved(connection: sqlite3.Connection, artifacts: Path) -> Iterator[tuple[str, str]]:
    """Yield old and new locations of the experiments whose files are in `artifacts` and belong to no other one."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        return
    known = [location or "" for (location,) in connection.execute("SELECT artifact_location FROM experiments")]
    for location in known:
        old, new = Path(location), artifacts / Path(location).name
        if old.parent.name == ARTIFACTS and new.is_dir() and str(new) not in known:
            yield location, str(new)
