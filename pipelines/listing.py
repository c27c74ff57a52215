"""`pedigree list`: the models in params.yaml, one per line."""

from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.project import listing


def show(root: Path) -> None:
    """Print each model's task, data and champion.

    Raises:
        PedigreeError: params.yaml is invalid, or MLflow's store does not answer.
    """
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("model", "task", "data", "champion"):
        table.add_column(column)
    for row in listing.rows(root):
        table.add_row(*(Text(cell) for cell in (row.name, row.task, row.data, row.champion)))
    Console(width=240, highlight=False).print(table)  # wide, so that each row stays on one line in a pipe
