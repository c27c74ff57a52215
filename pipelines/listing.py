"""`pedigree list`: the models in params.yaml, one per line."""

from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from components.project import listing
from pipelines import terminal


def show(root: Path) -> None:
    """Print each model's task, data and champion.

    Raises:
        PedigreeError: params.yaml is invalid, or MLflow's store does not answer.
    """
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("model", "task", "data", "champion"):
        table.add_column(column)
    for row in listing.rows(root):
        table.add_row(row.name, row.task, row.data, row.champion)
    terminal.console(width=240).print(table)  # wide, so that each row stays on one line in a pipe
