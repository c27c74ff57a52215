"""`pedigree trace`, `promote` and `rollback`: what people ask of registered versions, and do with them."""

from pathlib import Path

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from components.adapters import mlflow_store
from components.stages import registry
from components.stages.registry import HERE, REMOTE, Ancestor

# Wide enough for whole hashes, also where the output is no terminal, or a narrow one.
_console = Console(width=240, highlight=False)


def trace(root: Path, version: str | None, data: str | None) -> None:
    """Print the ancestry of a version, or all versions that a data version made."""
    mlflow_store.connect(root)
    if version is not None:
        _console.print(_tree(registry.trace(version, root)))
    elif data is not None:
        table = Table(box=SIMPLE, pad_edge=False)
        for column in ("version", "started", "data", "of the task", "params", "commit"):
            table.add_column(column)
        for found, made in registry.made_by(data):
            hashes = (made.data.pinned, made.data.raw, made.params_sha256, made.code.commit)
            table.add_row(f"{found.name} {found.version}", made.started, *(each[:12] for each in hashes))
        _console.print(table)


def _tree(ancestor: Ancestor, above: Tree | None = None) -> Tree:
    label = Text.assemble((ancestor.what, "bold"), "  ", ancestor.which)
    if ancestor.where:
        label.append(f"  {ancestor.where}", "green" if ancestor.where in (HERE, REMOTE) else "red")
    tree = above.add(label) if above else Tree(label)
    for each in ancestor.made_from:
        _tree(each, tree)
    return tree


def promote(root: Path, name: str, version: int, why: str) -> None:
    """Make a version the champion."""
    mlflow_store.connect(root)
    champion = registry.promote(f"{name}/{version}", why, root)
    typer.echo(f"{name} version {champion.version} is the champion now")


def rollback(root: Path, name: str, why: str) -> None:
    """Make the champion's predecessor the champion again."""
    mlflow_store.connect(root)
    champion = registry.rollback(name, why, root)
    typer.echo(f"{name} version {champion.version} is the champion again")
