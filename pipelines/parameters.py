"""`pedigree params`: a model's parameters, with what each may be and means."""

from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from components import models
from components.project import parameters
from pipelines import terminal


def show(root: Path, name: str, prefix: str) -> None:
    """Print the parameters of a model whose names begin with a section's or parameter's name; all if it is empty.

    Raises:
        PedigreeError: the model or params.yaml is invalid, or there is no such parameter.
    """
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("parameter", no_wrap=True)
    table.add_column("value", max_width=32, overflow="fold")
    table.add_column("choices or bounds", max_width=36)
    table.add_column("meaning", min_width=24)
    for each in parameters.parameters(models.load(root, name), prefix):
        table.add_row(each.name, each.value, each.allowed, each.description)
    # Wide where nobody sees it, so that each parameter stays on one line in a pipe.
    console = terminal.console()
    (console if console.is_terminal else terminal.console(width=320)).print(table)
