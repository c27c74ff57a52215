"""Lets MLflow's own database follow its checkout to another folder: MLflow keeps absolute addresses of artifacts.

MLflow has no command for that (github.com/mlflow/mlflow/issues/3144).
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
"""Tables and columns in which MLflow says where files are."""


def follow(database: Path) -> None:
    """Where an experiment's artifacts now lie in mlruns/ beside the database, and did not before, say so in it.

    Reading the whole database takes a second for some 500 MB.

    Raises:
        PedigreeError: the database is damaged or was emptied, or somebody holds it for longer than a minute.
    """
    if not database.is_file():
        return
    if not database.stat().st_size and any((database.parent / ARTIFACTS).glob("*/")):
        raise PedigreeError(
            f"{database} is empty, and {ARTIFACTS} beside it holds files of runs that it knew: bring an older copy "
            f"of it back, or remove both to begin anew"
        )
    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            # MLflow would go on with whatever it can still read of a damaged file.
            if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(" ".join(found.split()))
            for there, here in list(_moved(connection, database.parent / ARTIFACTS)):
                for table, column in _ADDRESSES:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names from above
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (here, len(there) + 1, there, len(there) + 1, f"{there}/"),
                    )
    except sqlite3.Error as error:
        raise PedigreeError(
            f"{database} cannot be used ({error}): see who uses it, or bring an older copy back"
        ) from error


def _moved(connection: sqlite3.Connection, artifacts: Path) -> Iterator[tuple[str, str]]:
    """Yield where an experiment's files were, and are, for those whose files are here and are no other one's."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        return
    known = [location or "" for (location,) in connection.execute("SELECT artifact_location FROM experiments")]
    for location in known:
        there, here = Path(location), artifacts / Path(location).name
        if there.parent.name == ARTIFACTS and here.is_dir() and str(here) not in known:
            yield location, str(here)
